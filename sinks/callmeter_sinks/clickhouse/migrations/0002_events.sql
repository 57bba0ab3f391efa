-- From the landing table to one table per kind of event. Every row keeps its origin: the log, the
-- partition and offset of its record in the topic events, and its line number there.

-- One row per record of the topic metered; stores nothing, feeds the views below.
-- header is line 0, body the other lines, each ended by a newline.
CREATE TABLE IF NOT EXISTS landing ${CL} (
  topic LowCardinality(String),
  partition UInt16,
  metered_offset Int64,
  type LowCardinality(String),
  header String,
  body String
) ENGINE = Null;

-- Envelopes with their header read once.
CREATE TABLE IF NOT EXISTS envelope_records ${CL} (
  log_id UUID,
  partition UInt16,
  origin Int64,
  metered_offset Int64,
  log_ts DateTime64(6, 'UTC'),
  verdict LowCardinality(String),
  reason LowCardinality(String),
  detail String,
  source UUID,
  seq UInt64,
  n UInt32,
  sent_at DateTime64(6, 'UTC'),
  project LowCardinality(String),
  environment LowCardinality(String),
  service LowCardinality(String),
  sdk LowCardinality(String),
  accepted UInt64,
  dropped Map(LowCardinality(String), UInt64),
  last Bool,
  events UInt32,
  refused UInt32,
  bytes UInt32,
  body String
) ENGINE = Null;

CREATE MATERIALIZED VIEW IF NOT EXISTS mv_envelope_records ${CL} TO envelope_records AS
SELECT
  h.log AS log_id, partition, h.offset AS origin, metered_offset,
  fromUnixTimestamp64Micro(h.log_ts_us, 'UTC') AS log_ts,
  h.verdict AS verdict, h.reason AS reason, h.detail AS detail,
  h.source AS source, h.seq AS seq, h.n AS n,
  fromUnixTimestamp64Micro(h.sent_us, 'UTC') AS sent_at,
  h.project AS project, h.environment AS environment, h.service AS service, h.sdk AS sdk,
  h.accepted AS accepted, h.dropped AS dropped, h.last AS last,
  h.events AS events, h.refused AS refused, h.bytes AS bytes,
  body
FROM (
  SELECT partition, metered_offset, body,
    JSONExtract(header, 'Tuple(log UUID, offset Int64, log_ts_us Int64, verdict LowCardinality(String), reason LowCardinality(String), detail String, source UUID, seq UInt64, n UInt32, sent_us Int64, project LowCardinality(String), environment LowCardinality(String), service LowCardinality(String), sdk LowCardinality(String), accepted UInt64, dropped Map(LowCardinality(String), UInt64), last Bool, events UInt32, refused UInt32, bytes UInt32)') AS h
  FROM landing WHERE type = 'envelope'
);

-- The ledger: every envelope once by its origin, duplicates and refused ones marked by verdict.
-- The counts by kind are of the lines as they stand; verify compares them with the tables.
CREATE TABLE IF NOT EXISTS envelopes ${CL} (
  log_id UUID CODEC(ZSTD(1)),
  partition UInt16 CODEC(ZSTD(1)),
  origin Int64 CODEC(Delta(8), ZSTD(1)),
  metered_offset Int64 CODEC(Delta(8), ZSTD(1)),
  log_ts DateTime64(6, 'UTC') CODEC(Delta(8), ZSTD(1)),
  verdict LowCardinality(String),
  reason LowCardinality(String),
  detail String CODEC(ZSTD(1)),
  source UUID CODEC(ZSTD(1)),
  seq UInt64 CODEC(Delta(8), ZSTD(1)),
  n UInt32 CODEC(T64, ZSTD(1)),
  sent_at DateTime64(6, 'UTC') CODEC(Delta(8), ZSTD(1)),
  project LowCardinality(String),
  environment LowCardinality(String),
  service LowCardinality(String),
  sdk LowCardinality(String),
  accepted UInt64 CODEC(Delta(8), ZSTD(1)),
  dropped Map(LowCardinality(String), UInt64),
  last Bool,
  events UInt32 CODEC(T64, ZSTD(1)),
  refused UInt32 CODEC(T64, ZSTD(1)),
  bytes UInt32 CODEC(T64, ZSTD(1)),
  call_begins UInt32 CODEC(T64, ZSTD(1)),
  call_ends UInt32 CODEC(T64, ZSTD(1)),
  costs UInt32 CODEC(T64, ZSTD(1)),
  metrics UInt32 CODEC(T64, ZSTD(1)),
  annotations UInt32 CODEC(T64, ZSTD(1)),
  experiments UInt32 CODEC(T64, ZSTD(1)),
  heartbeats UInt32 CODEC(T64, ZSTD(1)),
  INDEX ix_source source TYPE bloom_filter(0.01) GRANULARITY 1
) ENGINE = ${R}MergeTree
PARTITION BY toYYYYMM(log_ts)
ORDER BY (log_id, partition, origin)
SETTINGS ${D}, ttl_only_drop_parts = 1;

CREATE MATERIALIZED VIEW IF NOT EXISTS mv_envelopes ${CL} TO envelopes AS
SELECT
  log_id, partition, origin, metered_offset, log_ts, verdict, reason, detail, source, seq, n,
  sent_at, project, environment, service, sdk, accepted, dropped, last, events, refused, bytes,
  countSubstrings(lines, '\n{"kind":"call_begin"') AS call_begins,
  countSubstrings(lines, '\n{"kind":"call_end"') AS call_ends,
  countSubstrings(lines, '\n{"kind":"cost"') AS costs,
  countSubstrings(lines, '\n{"kind":"metric"') AS metrics,
  countSubstrings(lines, '\n{"kind":"annotation"') AS annotations,
  countSubstrings(lines, '\n{"kind":"experiment"') AS experiments,
  countSubstrings(lines, '\n{"kind":"heartbeat"') AS heartbeats
FROM (SELECT *, concat('\n', body) AS lines FROM envelope_records);

-- Lines with the header's dimensions; idx is the line number, from 1. No newline can stand inside
-- a JSON line, so splitting is exact.
CREATE TABLE IF NOT EXISTS event_lines ${CL} (
  log_id UUID,
  partition UInt16,
  origin Int64,
  idx UInt16,
  log_ts DateTime64(6, 'UTC'),
  verdict LowCardinality(String),
  source UUID,
  seq UInt64,
  project LowCardinality(String),
  environment LowCardinality(String),
  service LowCardinality(String),
  line String
) ENGINE = Null;

CREATE MATERIALIZED VIEW IF NOT EXISTS mv_event_lines ${CL} TO event_lines AS
SELECT log_id, partition, origin, idx, log_ts, verdict, source, seq,
  project, environment, service, line
FROM (
  SELECT log_id, partition, origin, log_ts, verdict, source, seq, project, environment, service,
    arrayPopBack(splitByChar('\n', body)) AS lines
  FROM envelope_records
)
ARRAY JOIN lines AS line, arrayEnumerate(lines) AS idx;

-- Finished calls (call_end). NULL is unknown: latency, time to first token, tokens, cost.
-- http_status 0 and parent_span_id 0 mean absent. inputs and outputs are JSON as sent.
CREATE TABLE IF NOT EXISTS calls ${CL} (
  project LowCardinality(String),
  environment LowCardinality(String),
  service LowCardinality(String),
  provider LowCardinality(String),
  model LowCardinality(String),
  response_model LowCardinality(String),
  operation LowCardinality(String),
  name LowCardinality(String),
  phase LowCardinality(String),
  program LowCardinality(String),
  node LowCardinality(String),
  user String CODEC(ZSTD(1)),
  session String CODEC(ZSTD(1)),
  status LowCardinality(String),
  error_type LowCardinality(String),
  error_message String CODEC(ZSTD(1)),
  finish_reason LowCardinality(String),
  service_tier LowCardinality(String),
  http_status UInt16 CODEC(T64, ZSTD(1)),
  attempts UInt32 CODEC(T64, ZSTD(1)),
  started_at DateTime64(6, 'UTC') CODEC(Delta(8), ZSTD(1)),
  ts DateTime64(6, 'UTC') CODEC(Delta(8), ZSTD(1)),
  latency_us Nullable(UInt64) CODEC(T64, ZSTD(1)),
  ttft_us Nullable(UInt64) CODEC(T64, ZSTD(1)),
  input_tokens Nullable(UInt64) CODEC(T64, ZSTD(1)),
  output_tokens Nullable(UInt64) CODEC(T64, ZSTD(1)),
  usage Map(LowCardinality(String), UInt64) CODEC(ZSTD(1)),
  cost Nullable(Decimal(38, 12)) CODEC(ZSTD(1)),
  cost_source LowCardinality(String),
  price_version LowCardinality(String),
  unpriced Bool,
  usage_unknown Bool,
  call_id UUID CODEC(ZSTD(1)),
  trace_id UUID CODEC(ZSTD(1)),
  parent_span_id UInt64 CODEC(ZSTD(1)),
  span_id UInt64 ALIAS toUInt64(bitAnd(toUInt128(call_id), toUInt128(18446744073709551615))),
  tags Map(LowCardinality(String), String) CODEC(ZSTD(1)),
  attributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
  inputs String CODEC(ZSTD(3)),
  outputs String CODEC(ZSTD(3)),
  cut Array(LowCardinality(String)),
  log_ts DateTime64(6, 'UTC') CODEC(Delta(8), ZSTD(1)),
  log_id UUID CODEC(ZSTD(1)),
  partition UInt16 CODEC(ZSTD(1)),
  origin Int64 CODEC(Delta(8), ZSTD(1)),
  idx UInt16 CODEC(Delta(2), ZSTD(1)),
  INDEX ix_trace trace_id TYPE bloom_filter(0.001) GRANULARITY 1,
  INDEX ix_call call_id TYPE bloom_filter(0.001) GRANULARITY 1,
  INDEX ix_origin origin TYPE minmax GRANULARITY 1,
  INDEX ix_tags arrayMap((k, v) -> concat(k, '=', v), mapKeys(tags), mapValues(tags)) TYPE bloom_filter(0.01) GRANULARITY 1
) ENGINE = ${R}MergeTree
PARTITION BY toYYYYMM(started_at)
ORDER BY (project, toStartOfHour(started_at), model, started_at, partition, origin, idx)
SETTINGS ${D}, ttl_only_drop_parts = 1;

-- usage absent is unknown and {} is none. A map that came out empty is the only doubtful case, so
-- only there the line is looked at again.
CREATE MATERIALIZED VIEW IF NOT EXISTS mv_calls ${CL} TO calls AS
SELECT
  project, environment, service,
  e.provider AS provider, e.model AS model, e.response_model AS response_model,
  e.operation AS operation, e.name AS name, e.phase AS phase, e.program AS program,
  e.node AS node, e.user AS user, e.session AS session, e.status AS status,
  e.error_type AS error_type, e.error_message AS error_message,
  e.finish_reason AS finish_reason, e.service_tier AS service_tier,
  e.http_status AS http_status, greatest(e.attempts, 1) AS attempts,
  fromUnixTimestamp64Micro(e.started_us, 'UTC') AS started_at,
  fromUnixTimestamp64Micro(e.ts_us, 'UTC') AS ts,
  e.latency_us AS latency_us, e.ttft_us AS ttft_us,
  if(known, e.usage['input'], NULL) AS input_tokens,
  if(known, e.usage['output'], NULL) AS output_tokens,
  e.usage AS usage,
  if(priced, reinterpret(toInt128(if(priced, e.cost_pico, '0')), 'Decimal(38, 12)'), NULL) AS cost,
  e.cost_source AS cost_source, e.price_version AS price_version,
  (model_operation AND known AND NOT priced) AS unpriced,
  (model_operation AND NOT known) AS usage_unknown,
  e.call_id AS call_id, e.trace_id AS trace_id,
  reinterpretAsUInt64(reverse(unhex(e.parent_span_id))) AS parent_span_id,
  e.tags AS tags, e.attributes AS attributes,
  if(position(line, '"inputs":') > 0, JSONExtractRaw(line, 'inputs'), '') AS inputs,
  if(position(line, '"outputs":') > 0, JSONExtractRaw(line, 'outputs'), '') AS outputs,
  e.cut AS cut, log_ts, log_id, partition, origin, idx
FROM (
  SELECT *,
    JSONExtract(line, 'Tuple(ts_us Int64, call_id UUID, trace_id UUID, started_us Int64, operation LowCardinality(String), status LowCardinality(String), parent_span_id String, name LowCardinality(String), provider LowCardinality(String), model LowCardinality(String), response_model LowCardinality(String), phase LowCardinality(String), program LowCardinality(String), node LowCardinality(String), user String, session String, tags Map(LowCardinality(String), String), attributes Map(LowCardinality(String), String), service_tier LowCardinality(String), error_type LowCardinality(String), error_message String, finish_reason LowCardinality(String), http_status UInt16, attempts UInt32, latency_us Nullable(UInt64), ttft_us Nullable(UInt64), usage Map(LowCardinality(String), UInt64), cost_pico String, cost_source LowCardinality(String), price_version LowCardinality(String), cut Array(LowCardinality(String)))') AS e,
    e.cost_pico != '' AS priced,
    if(notEmpty(e.usage), 1, position(line, '"usage":{') > 0 AND JSONHas(line, 'usage')) AS known,
    e.operation IN ('chat', 'text_completion', 'embeddings', 'generate_content') AS model_operation
  FROM event_lines WHERE startsWith(line, '{"kind":"call_end"')
);

-- Begun calls (call_begin), kept for a short time.
CREATE TABLE IF NOT EXISTS calls_open ${CL} (
  project LowCardinality(String),
  environment LowCardinality(String),
  service LowCardinality(String),
  provider LowCardinality(String),
  model LowCardinality(String),
  operation LowCardinality(String),
  name LowCardinality(String),
  phase LowCardinality(String),
  program LowCardinality(String),
  node LowCardinality(String),
  user String CODEC(ZSTD(1)),
  session String CODEC(ZSTD(1)),
  started_at DateTime64(6, 'UTC') CODEC(Delta(8), ZSTD(1)),
  ts DateTime64(6, 'UTC') CODEC(Delta(8), ZSTD(1)),
  estimate Nullable(Decimal(38, 12)) CODEC(ZSTD(1)),
  call_id UUID CODEC(ZSTD(1)),
  trace_id UUID CODEC(ZSTD(1)),
  parent_span_id UInt64 CODEC(ZSTD(1)),
  span_id UInt64 ALIAS toUInt64(bitAnd(toUInt128(call_id), toUInt128(18446744073709551615))),
  tags Map(LowCardinality(String), String) CODEC(ZSTD(1)),
  attributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
  inputs String CODEC(ZSTD(3)),
  source UUID CODEC(ZSTD(1)),
  log_ts DateTime64(6, 'UTC') CODEC(Delta(8), ZSTD(1)),
  log_id UUID CODEC(ZSTD(1)),
  partition UInt16 CODEC(ZSTD(1)),
  origin Int64 CODEC(Delta(8), ZSTD(1)),
  idx UInt16 CODEC(Delta(2), ZSTD(1)),
  INDEX ix_trace trace_id TYPE bloom_filter(0.001) GRANULARITY 1
) ENGINE = ${R}MergeTree
PARTITION BY toYYYYMM(started_at)
ORDER BY (started_at, call_id, partition, origin, idx)
SETTINGS ${D}, ttl_only_drop_parts = 1;

CREATE MATERIALIZED VIEW IF NOT EXISTS mv_calls_open ${CL} TO calls_open AS
SELECT
  project, environment, service,
  e.provider AS provider, e.model AS model, e.operation AS operation, e.name AS name,
  e.phase AS phase, e.program AS program, e.node AS node, e.user AS user, e.session AS session,
  fromUnixTimestamp64Micro(e.started_us, 'UTC') AS started_at,
  fromUnixTimestamp64Micro(e.ts_us, 'UTC') AS ts,
  if(known, reinterpret(toInt128(if(known, e.estimate_pico, '0')), 'Decimal(38, 12)'), NULL) AS estimate,
  e.call_id AS call_id, e.trace_id AS trace_id,
  reinterpretAsUInt64(reverse(unhex(e.parent_span_id))) AS parent_span_id,
  e.tags AS tags, e.attributes AS attributes,
  if(position(line, '"inputs":') > 0, JSONExtractRaw(line, 'inputs'), '') AS inputs,
  source, log_ts, log_id, partition, origin, idx
FROM (
  SELECT *,
    JSONExtract(line, 'Tuple(ts_us Int64, call_id UUID, trace_id UUID, started_us Int64, operation LowCardinality(String), parent_span_id String, name LowCardinality(String), provider LowCardinality(String), model LowCardinality(String), phase LowCardinality(String), program LowCardinality(String), node LowCardinality(String), user String, session String, tags Map(LowCardinality(String), String), attributes Map(LowCardinality(String), String), estimate_pico String)') AS e,
    e.estimate_pico != '' AS known
  FROM event_lines WHERE startsWith(line, '{"kind":"call_begin"')
);

-- Money apart from its call: bills and corrections. service and environment are those of the call
-- it corrects where the event names them, else the header's. call_id is the nil UUID if absent.
CREATE TABLE IF NOT EXISTS costs ${CL} (
  project LowCardinality(String),
  environment LowCardinality(String),
  service LowCardinality(String),
  provider LowCardinality(String),
  model LowCardinality(String),
  operation LowCardinality(String),
  phase LowCardinality(String),
  program LowCardinality(String),
  user String CODEC(ZSTD(1)),
  session String CODEC(ZSTD(1)),
  status LowCardinality(String),
  started_at DateTime64(6, 'UTC') CODEC(Delta(8), ZSTD(1)),
  ts DateTime64(6, 'UTC') CODEC(Delta(8), ZSTD(1)),
  cost Decimal(38, 12) CODEC(ZSTD(1)),
  cost_source LowCardinality(String),
  price_version LowCardinality(String),
  note String CODEC(ZSTD(1)),
  call_id UUID CODEC(ZSTD(1)),
  tags Map(LowCardinality(String), String) CODEC(ZSTD(1)),
  log_ts DateTime64(6, 'UTC') CODEC(Delta(8), ZSTD(1)),
  log_id UUID CODEC(ZSTD(1)),
  partition UInt16 CODEC(ZSTD(1)),
  origin Int64 CODEC(Delta(8), ZSTD(1)),
  idx UInt16 CODEC(Delta(2), ZSTD(1)),
  INDEX ix_call call_id TYPE bloom_filter(0.001) GRANULARITY 1,
  INDEX ix_origin origin TYPE minmax GRANULARITY 1
) ENGINE = ${R}MergeTree
PARTITION BY toYYYYMM(started_at)
ORDER BY (project, started_at, partition, origin, idx)
SETTINGS ${D}, ttl_only_drop_parts = 1;

CREATE MATERIALIZED VIEW IF NOT EXISTS mv_costs ${CL} TO costs AS
SELECT
  project,
  if(e.environment != '', e.environment, header_environment) AS environment,
  if(e.service != '', e.service, header_service) AS service,
  e.provider AS provider, e.model AS model, e.operation AS operation, e.phase AS phase,
  e.program AS program, e.user AS user, e.session AS session, e.status AS status,
  fromUnixTimestamp64Micro(e.started_us, 'UTC') AS started_at,
  fromUnixTimestamp64Micro(e.ts_us, 'UTC') AS ts,
  reinterpret(toInt128(e.cost_pico), 'Decimal(38, 12)') AS cost,
  e.source AS cost_source, e.price_version AS price_version, e.note AS note,
  e.call_id AS call_id, e.tags AS tags, log_ts, log_id, partition, origin, idx
FROM (
  SELECT project, environment AS header_environment, service AS header_service,
    log_ts, log_id, partition, origin, idx,
    JSONExtract(line, 'Tuple(ts_us Int64, started_us Int64, cost_pico String, source LowCardinality(String), call_id UUID, operation LowCardinality(String), provider LowCardinality(String), model LowCardinality(String), phase LowCardinality(String), program LowCardinality(String), user String, session String, status LowCardinality(String), service LowCardinality(String), environment LowCardinality(String), tags Map(LowCardinality(String), String), price_version LowCardinality(String), note String)') AS e
  FROM event_lines WHERE startsWith(line, '{"kind":"cost"')
);

-- One finite number of a series; the series is (project, experiment, name, labels).
CREATE TABLE IF NOT EXISTS metrics ${CL} (
  project LowCardinality(String),
  environment LowCardinality(String),
  service LowCardinality(String),
  experiment LowCardinality(String),
  name LowCardinality(String),
  labels Map(LowCardinality(String), String) CODEC(ZSTD(1)),
  step Nullable(Int64) CODEC(Delta(8), ZSTD(1)),
  ts DateTime64(6, 'UTC') CODEC(Delta(8), ZSTD(1)),
  value Float64 CODEC(Gorilla, ZSTD(1)),
  event_id String CODEC(ZSTD(1)),
  log_ts DateTime64(6, 'UTC') CODEC(Delta(8), ZSTD(1)),
  log_id UUID CODEC(ZSTD(1)),
  partition UInt16 CODEC(ZSTD(1)),
  origin Int64 CODEC(Delta(8), ZSTD(1)),
  idx UInt16 CODEC(Delta(2), ZSTD(1)),
  INDEX ix_origin origin TYPE minmax GRANULARITY 1
) ENGINE = ${R}MergeTree
PARTITION BY toYYYYMM(ts)
ORDER BY (project, experiment, name, ts, partition, origin, idx)
SETTINGS ${D}, ttl_only_drop_parts = 1;

CREATE MATERIALIZED VIEW IF NOT EXISTS mv_metrics ${CL} TO metrics AS
SELECT
  project, environment, service,
  e.experiment AS experiment, e.name AS name, e.labels AS labels, e.step AS step,
  fromUnixTimestamp64Micro(e.ts_us, 'UTC') AS ts, e.value AS value, e.event_id AS event_id,
  log_ts, log_id, partition, origin, idx
FROM (
  SELECT *,
    JSONExtract(line, 'Tuple(ts_us Int64, name LowCardinality(String), value Float64, step Nullable(Int64), labels Map(LowCardinality(String), String), experiment LowCardinality(String), event_id String)') AS e
  FROM event_lines WHERE startsWith(line, '{"kind":"metric"')
);

-- Text on a call (call_id), an experiment (its slug) or the project; metadata is JSON as sent.
CREATE TABLE IF NOT EXISTS annotations ${CL} (
  project LowCardinality(String),
  environment LowCardinality(String),
  service LowCardinality(String),
  experiment LowCardinality(String),
  call_id UUID CODEC(ZSTD(1)),
  ts DateTime64(6, 'UTC') CODEC(Delta(8), ZSTD(1)),
  text String CODEC(ZSTD(3)),
  metadata String CODEC(ZSTD(3)),
  event_id String CODEC(ZSTD(1)),
  log_ts DateTime64(6, 'UTC') CODEC(Delta(8), ZSTD(1)),
  log_id UUID CODEC(ZSTD(1)),
  partition UInt16 CODEC(ZSTD(1)),
  origin Int64 CODEC(Delta(8), ZSTD(1)),
  idx UInt16 CODEC(Delta(2), ZSTD(1)),
  INDEX ix_call call_id TYPE bloom_filter(0.001) GRANULARITY 1
) ENGINE = ${R}MergeTree
PARTITION BY toYYYYMM(ts)
ORDER BY (project, experiment, ts, partition, origin, idx)
SETTINGS ${D}, ttl_only_drop_parts = 1;

CREATE MATERIALIZED VIEW IF NOT EXISTS mv_annotations ${CL} TO annotations AS
SELECT
  project, environment, service, e.experiment AS experiment, e.call_id AS call_id,
  fromUnixTimestamp64Micro(e.ts_us, 'UTC') AS ts, e.text AS text,
  if(position(line, '"metadata":') > 0, JSONExtractRaw(line, 'metadata'), '') AS metadata,
  e.event_id AS event_id, log_ts, log_id, partition, origin, idx
FROM (
  SELECT *,
    JSONExtract(line, 'Tuple(ts_us Int64, text String, call_id UUID, experiment LowCardinality(String), event_id String)') AS e
  FROM event_lines WHERE startsWith(line, '{"kind":"annotation"')
);

-- What was said of an experiment, one row a statement; identity is (project, slug). meta is JSON.
CREATE TABLE IF NOT EXISTS experiments ${CL} (
  project LowCardinality(String),
  environment LowCardinality(String),
  service LowCardinality(String),
  slug LowCardinality(String),
  ts DateTime64(6, 'UTC') CODEC(Delta(8), ZSTD(1)),
  status LowCardinality(String),
  error_name String CODEC(ZSTD(1)),
  error_detail String CODEC(ZSTD(3)),
  description String CODEC(ZSTD(3)),
  meta String CODEC(ZSTD(3)),
  event_id String CODEC(ZSTD(1)),
  source UUID CODEC(ZSTD(1)),
  log_ts DateTime64(6, 'UTC') CODEC(Delta(8), ZSTD(1)),
  log_id UUID CODEC(ZSTD(1)),
  partition UInt16 CODEC(ZSTD(1)),
  origin Int64 CODEC(Delta(8), ZSTD(1)),
  idx UInt16 CODEC(Delta(2), ZSTD(1))
) ENGINE = ${R}MergeTree
PARTITION BY toYYYYMM(ts)
ORDER BY (project, slug, ts, partition, origin, idx)
SETTINGS ${D}, ttl_only_drop_parts = 1;

CREATE MATERIALIZED VIEW IF NOT EXISTS mv_experiments ${CL} TO experiments AS
SELECT
  project, environment, service, e.slug AS slug,
  fromUnixTimestamp64Micro(e.ts_us, 'UTC') AS ts, e.status AS status,
  e.error_name AS error_name, e.error_detail AS error_detail, e.description AS description,
  if(position(line, '"meta":') > 0, JSONExtractRaw(line, 'meta'), '') AS meta,
  e.event_id AS event_id, source, log_ts, log_id, partition, origin, idx
FROM (
  SELECT *,
    JSONExtract(line, 'Tuple(ts_us Int64, slug LowCardinality(String), status LowCardinality(String), error_name String, error_detail String, description String, event_id String)') AS e
  FROM event_lines WHERE startsWith(line, '{"kind":"experiment"')
);

-- Lines and whole envelopes the meter refused, with the reason.
CREATE TABLE IF NOT EXISTS dead_letters ${CL} (
  log_ts DateTime64(6, 'UTC') CODEC(Delta(8), ZSTD(1)),
  log_id UUID CODEC(ZSTD(1)),
  partition UInt16 CODEC(ZSTD(1)),
  origin Int64 CODEC(Delta(8), ZSTD(1)),
  idx UInt16 CODEC(Delta(2), ZSTD(1)),
  whole_envelope Bool,
  source UUID CODEC(ZSTD(1)),
  seq UInt64 CODEC(Delta(8), ZSTD(1)),
  project LowCardinality(String),
  environment LowCardinality(String),
  service LowCardinality(String),
  reason LowCardinality(String),
  detail String CODEC(ZSTD(3)),
  line String CODEC(ZSTD(3))
) ENGINE = ${R}MergeTree
PARTITION BY toYYYYMM(log_ts)
ORDER BY (log_ts, partition, origin, idx)
SETTINGS ${D}, ttl_only_drop_parts = 1;

CREATE MATERIALIZED VIEW IF NOT EXISTS mv_dead_letters ${CL} TO dead_letters AS
SELECT
  log_ts, log_id, partition, origin, idx, verdict = 'refused' AS whole_envelope,
  source, seq, project, environment, service,
  e.reason AS reason, e.detail AS detail, e.line AS line
FROM (
  SELECT log_ts, log_id, partition, origin, idx, verdict, source, seq, project, environment, service,
    JSONExtract(raw, 'Tuple(reason LowCardinality(String), detail String, line String)') AS e
  FROM (SELECT * EXCEPT line, line AS raw FROM event_lines WHERE startsWith(line, '{"kind":"refused"'))
);
