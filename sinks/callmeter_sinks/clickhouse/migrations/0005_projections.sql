-- Sums beside single rows, for questions that rollups cannot answer: who the users are that cost most,
-- and which classes of errors there are. A projection lies within each part of its table: an insert, a
-- delete, an update and a merge change it with its rows or not at all, and the engine reads it instead
-- of the rows where a statement asks for just these groups and sums. docs/decisions/0022 says why not
-- tables. MATERIALIZE makes it for the parts that are there, in the background; until a part has it,
-- its rows are read.

ALTER TABLE calls ${CL} MODIFY SETTING lightweight_mutation_projection_mode = 'rebuild';
ALTER TABLE costs ${CL} MODIFY SETTING lightweight_mutation_projection_mode = 'rebuild';

-- By day (UTC) and user. Read by callmeter_sinks.queries.projected, with the same expressions.
ALTER TABLE calls ${CL} ADD PROJECTION IF NOT EXISTS by_user (
  SELECT project, toStartOfDay(started_at), service, operation, user,
    count(), sum(attempts), countIf(status != 'ok'), sum(input_tokens), sum(output_tokens),
    sum(cost), sum(unpriced), sum(usage_unknown)
  GROUP BY project, toStartOfDay(started_at), service, operation, user
);

ALTER TABLE costs ${CL} ADD PROJECTION IF NOT EXISTS by_user (
  SELECT project, toStartOfDay(started_at), service, operation, user, sum(cost)
  GROUP BY project, toStartOfDay(started_at), service, operation, user
);

-- By class of failure and hour; the newest failure of each is kept as its example.
ALTER TABLE calls ${CL} ADD PROJECTION IF NOT EXISTS by_failure (
  SELECT status, project, toStartOfHour(started_at), environment, service, provider, model,
    operation, error_type, http_status,
    count(), maxIf(started_at, status != 'ok'), argMaxIf(error_message, started_at, status != 'ok'),
    argMaxIf(call_id, started_at, status != 'ok')
  GROUP BY status, project, toStartOfHour(started_at), environment, service, provider, model,
    operation, error_type, http_status
);

ALTER TABLE calls ${CL} MATERIALIZE PROJECTION IF EXISTS by_user;
ALTER TABLE costs ${CL} MATERIALIZE PROJECTION IF EXISTS by_user;
ALTER TABLE calls ${CL} MATERIALIZE PROJECTION IF EXISTS by_failure;
