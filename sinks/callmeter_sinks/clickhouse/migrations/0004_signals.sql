-- What the processors say beside the stream of metered records: alerts, where budgets stand, calls in
-- flight; and the audit log as a table of its own.

-- One row per record of the topics alerts, budgets, budget-status and live; stores nothing, feeds the
-- views below. record is the JSON value, '' for a tombstone; key is the record's key.
CREATE TABLE IF NOT EXISTS landing_signals ${CL} (
  topic LowCardinality(String),
  partition UInt16,
  topic_offset Int64,
  log_id UUID,
  log_ts DateTime64(6, 'UTC'),
  key String,
  record String
) ENGINE = Null;

-- Each alert once. value and limit_value are integers in the measure's unit (pico-USD, tokens, ppm,
-- microseconds, envelopes); call_id, trace_id and source are nil where the alert names none.
CREATE TABLE IF NOT EXISTS alerts ${CL} (
  at DateTime64(6, 'UTC') CODEC(Delta(8), ZSTD(1)),
  id String CODEC(ZSTD(1)),
  kind LowCardinality(String),
  rule LowCardinality(String),
  severity LowCardinality(String),
  message String CODEC(ZSTD(3)),
  project LowCardinality(String),
  version UInt32,
  entity String CODEC(ZSTD(1)),
  window LowCardinality(String),
  start_at Nullable(DateTime64(6, 'UTC')),
  end_at Nullable(DateTime64(6, 'UTC')),
  measure LowCardinality(String),
  threshold LowCardinality(String),
  ordinal UInt32,
  value Nullable(Int128),
  limit_value Nullable(Int128),
  late Bool,
  corrects String CODEC(ZSTD(1)),
  source UUID CODEC(ZSTD(1)),
  call_id UUID CODEC(ZSTD(1)),
  trace_id UUID CODEC(ZSTD(1)),
  provider LowCardinality(String),
  model LowCardinality(String),
  program LowCardinality(String),
  user String CODEC(ZSTD(1)),
  session String CODEC(ZSTD(1)),
  started_at Nullable(DateTime64(6, 'UTC')),
  first_seq Nullable(UInt64),
  last_seq Nullable(UInt64),
  log_ts DateTime64(6, 'UTC') CODEC(Delta(8), ZSTD(1)),
  log_id UUID CODEC(ZSTD(1)),
  partition UInt16 CODEC(ZSTD(1)),
  topic_offset Int64 CODEC(Delta(8), ZSTD(1)),
  INDEX ix_id id TYPE bloom_filter(0.01) GRANULARITY 1,
  INDEX ix_corrects corrects TYPE bloom_filter(0.01) GRANULARITY 1
) ENGINE = ${R}MergeTree
PARTITION BY toYYYYMM(log_ts)
ORDER BY (at, id)
SETTINGS ${D}, ttl_only_drop_parts = 1;

CREATE MATERIALIZED VIEW IF NOT EXISTS mv_alerts ${CL} TO alerts AS
SELECT
  fromUnixTimestamp64Micro(e.at_us, 'UTC') AS at, e.id AS id, e.kind AS kind, e.rule AS rule,
  e.severity AS severity, e.message AS message, e.project AS project, e.version AS version,
  e.entity AS entity, e.window AS window,
  fromUnixTimestamp64Micro(e.start_us, 'UTC') AS start_at,
  fromUnixTimestamp64Micro(e.end_us, 'UTC') AS end_at,
  e.measure AS measure, e.threshold AS threshold, e.ordinal AS ordinal,
  toInt128OrNull(e.value) AS value, toInt128OrNull(e.limit) AS limit_value, e.late AS late,
  e.corrects AS corrects, e.source AS source, e.call_id AS call_id, e.trace_id AS trace_id,
  e.provider AS provider, e.model AS model, e.program AS program, e.user AS user,
  e.session AS session, fromUnixTimestamp64Micro(e.started_us, 'UTC') AS started_at,
  e.first_seq AS first_seq, e.last_seq AS last_seq,
  log_ts, log_id, partition, topic_offset
FROM (
  SELECT log_ts, log_id, partition, topic_offset,
    JSONExtract(record, 'Tuple(at_us Int64, id String, kind LowCardinality(String), rule LowCardinality(String), severity LowCardinality(String), message String, project LowCardinality(String), version UInt32, entity String, window LowCardinality(String), start_us Nullable(Int64), end_us Nullable(Int64), measure LowCardinality(String), threshold LowCardinality(String), ordinal UInt32, value String, limit String, late Bool, corrects String, source UUID, call_id UUID, trace_id UUID, provider LowCardinality(String), model LowCardinality(String), program LowCardinality(String), user String, session String, started_us Nullable(Int64), first_seq Nullable(UInt64), last_seq Nullable(UInt64))') AS e
  FROM landing_signals WHERE topic = 'alerts'
);

-- Gaps that were told of: closed_at is NULL while envelopes are missing. Rows of one key join, so
-- read with min, max and GROUP BY.
CREATE TABLE IF NOT EXISTS gaps ${CL} (
  log_id UUID,
  source UUID,
  first_seq UInt64,
  last_seq SimpleAggregateFunction(max, UInt64),
  recorded_at SimpleAggregateFunction(min, Nullable(DateTime64(6, 'UTC'))),
  closed_at SimpleAggregateFunction(max, Nullable(DateTime64(6, 'UTC'))),
  log_ts SimpleAggregateFunction(max, DateTime64(6, 'UTC'))
) ENGINE = ${R}AggregatingMergeTree
ORDER BY (log_id, source, first_seq)
SETTINGS ${D}, ttl_only_drop_parts = 1;

CREATE MATERIALIZED VIEW IF NOT EXISTS mv_gaps ${CL} TO gaps AS
SELECT log_id, e.source AS source, e.first_seq AS first_seq, e.last_seq AS last_seq,
  if(e.kind = 'gap', toNullable(fromUnixTimestamp64Micro(e.at_us, 'UTC')), NULL) AS recorded_at,
  if(e.kind = 'gap', NULL, toNullable(fromUnixTimestamp64Micro(e.at_us, 'UTC'))) AS closed_at,
  log_ts
FROM (
  SELECT log_ts, log_id,
    JSONExtract(record, 'Tuple(at_us Int64, kind String, source UUID, first_seq UInt64, last_seq UInt64)') AS e
  FROM landing_signals WHERE topic = 'alerts'
)
WHERE e.kind IN ('gap', 'gap_closed');

-- Every version of a budget's definition; the highest version of an id counts. scope maps a dimension
-- to accepted values. slo is JSON, '' without objectives.
CREATE TABLE IF NOT EXISTS budgets ${CL} (
  id LowCardinality(String),
  version UInt32,
  basis UInt32,
  terms UInt32,
  window LowCardinality(String),
  scope Map(String, Array(String)),
  per LowCardinality(String),
  limit_cost Nullable(Decimal(38, 12)),
  limit_tokens Nullable(Int64),
  thresholds Array(String),
  action LowCardinality(String),
  state LowCardinality(String),
  resets UInt32,
  slo String,
  note String,
  edited_at DateTime64(6, 'UTC'),
  log_ts DateTime64(6, 'UTC'),
  log_id UUID,
  partition UInt16,
  topic_offset Int64
) ENGINE = ${R}MergeTree
ORDER BY (id, log_ts, topic_offset)
SETTINGS ${D}, ttl_only_drop_parts = 1;

CREATE MATERIALIZED VIEW IF NOT EXISTS mv_budgets ${CL} TO budgets AS
SELECT e.id AS id, e.version AS version, e.basis AS basis, e.terms AS terms, e.window AS window,
  e.scope AS scope, e.per AS per,
  if(e.limit_pico = '', NULL, reinterpret(toInt128OrZero(e.limit_pico), 'Decimal(38, 12)')) AS limit_cost,
  e.limit_tokens AS limit_tokens, e.thresholds AS thresholds, e.action AS action,
  e.state AS state, e.resets AS resets, JSONExtractRaw(record, 'slo') AS slo, e.note AS note,
  fromUnixTimestamp64Micro(e.edited_us, 'UTC') AS edited_at,
  log_ts, log_id, partition, topic_offset
FROM (
  SELECT log_ts, log_id, partition, topic_offset, record,
    JSONExtract(record, 'Tuple(id String, version UInt32, basis UInt32, terms UInt32, window LowCardinality(String), scope Map(String, Array(String)), per LowCardinality(String), limit_pico String, limit_tokens Nullable(Int64), thresholds Array(String), action LowCardinality(String), state LowCardinality(String), resets UInt32, note String, edited_us Int64)') AS e
  FROM landing_signals WHERE topic = 'budgets'
);

-- Every status that was published of a budget's entity. Money in USD, rates in USD an hour.
-- forgotten: the entity is no more (a tombstone). end_at NULL: the window has no end.
CREATE TABLE IF NOT EXISTS budget_status ${CL} (
  budget LowCardinality(String),
  entity String CODEC(ZSTD(1)),
  at DateTime64(6, 'UTC') CODEC(Delta(8), ZSTD(1)),
  forgotten Bool,
  version UInt32,
  basis UInt32,
  window LowCardinality(String),
  state LowCardinality(String),
  action LowCardinality(String),
  start_at DateTime64(6, 'UTC') CODEC(Delta(8), ZSTD(1)),
  end_at Nullable(DateTime64(6, 'UTC')) CODEC(ZSTD(1)),
  spend Decimal(38, 12) CODEC(ZSTD(1)),
  tokens Int64 CODEC(ZSTD(1)),
  calls Int64 CODEC(ZSTD(1)),
  failures Int64 CODEC(ZSTD(1)),
  unpriced Int64 CODEC(ZSTD(1)),
  usage_unknown Int64 CODEC(ZSTD(1)),
  limit_cost Nullable(Decimal(38, 12)) CODEC(ZSTD(1)),
  limit_tokens Nullable(Int64) CODEC(ZSTD(1)),
  forgiven Decimal(38, 12) CODEC(ZSTD(1)),
  forgiven_tokens Int64 CODEC(ZSTD(1)),
  resets UInt32 CODEC(ZSTD(1)),
  open Int64 CODEC(ZSTD(1)),
  exposure Decimal(38, 12) CODEC(ZSTD(1)),
  burn_short Decimal(38, 12) CODEC(ZSTD(1)),
  burn_long Decimal(38, 12) CODEC(ZSTD(1)),
  exhausts_at Nullable(DateTime64(6, 'UTC')) CODEC(ZSTD(1)),
  value Nullable(Int64) CODEC(ZSTD(1)),
  previous_start_at Nullable(DateTime64(6, 'UTC')) CODEC(ZSTD(1)),
  previous_spend Nullable(Decimal(38, 12)) CODEC(ZSTD(1)),
  previous_tokens Nullable(Int64) CODEC(ZSTD(1)),
  late Decimal(38, 12) CODEC(ZSTD(1)),
  openings UInt32 CODEC(ZSTD(1)),
  included Map(UInt16, Int64) CODEC(ZSTD(1)),
  log_ts DateTime64(6, 'UTC') CODEC(Delta(8), ZSTD(1)),
  log_id UUID CODEC(ZSTD(1)),
  partition UInt16 CODEC(ZSTD(1)),
  topic_offset Int64 CODEC(Delta(8), ZSTD(1))
) ENGINE = ${R}MergeTree
PARTITION BY toYYYYMM(log_ts)
ORDER BY (budget, entity, log_ts, topic_offset)
SETTINGS ${D}, ttl_only_drop_parts = 1;

CREATE MATERIALIZED VIEW IF NOT EXISTS mv_budget_status ${CL} TO budget_status AS
SELECT
  if(forgotten, splitByChar('|', key)[1], e.budget) AS budget,
  if(forgotten, substring(key, position(key, '|') + 1), e.entity) AS entity,
  if(forgotten, log_ts, fromUnixTimestamp64Micro(e.at_us, 'UTC')) AS at,
  forgotten, e.version AS version, e.basis AS basis, e.window AS window, e.state AS state,
  e.action AS action, fromUnixTimestamp64Micro(e.start_us, 'UTC') AS start_at,
  fromUnixTimestamp64Micro(nullIf(e.end_us, 0), 'UTC') AS end_at,
  reinterpret(toInt128OrZero(e.spend_pico), 'Decimal(38, 12)') AS spend,
  e.tokens AS tokens, e.calls AS calls, e.failures AS failures, e.unpriced AS unpriced,
  e.usage_unknown AS usage_unknown,
  if(e.limit_pico = '', NULL, reinterpret(toInt128OrZero(e.limit_pico), 'Decimal(38, 12)')) AS limit_cost,
  e.limit_tokens AS limit_tokens,
  reinterpret(toInt128OrZero(e.forgiven_pico), 'Decimal(38, 12)') AS forgiven,
  e.forgiven_tokens AS forgiven_tokens, e.resets AS resets, e.open AS open,
  reinterpret(toInt128OrZero(e.exposure_pico), 'Decimal(38, 12)') AS exposure,
  reinterpret(toInt128OrZero(e.burn_short_pico), 'Decimal(38, 12)') AS burn_short,
  reinterpret(toInt128OrZero(e.burn_long_pico), 'Decimal(38, 12)') AS burn_long,
  fromUnixTimestamp64Micro(e.exhausts_us, 'UTC') AS exhausts_at, e.value AS value,
  fromUnixTimestamp64Micro(e.previous.start_us, 'UTC') AS previous_start_at,
  if(e.previous.spend_pico = '', NULL, reinterpret(toInt128OrZero(e.previous.spend_pico), 'Decimal(38, 12)')) AS previous_spend,
  e.previous.tokens AS previous_tokens,
  reinterpret(toInt128OrZero(e.late_pico), 'Decimal(38, 12)') AS late,
  e.openings AS openings, CAST(e.included, 'Map(UInt16, Int64)') AS included,
  log_ts, log_id, partition, topic_offset
FROM (
  SELECT log_ts, log_id, partition, topic_offset, key, record = '' AS forgotten,
    JSONExtract(record, 'Tuple(budget String, entity String, at_us Int64, version UInt32, basis UInt32, window LowCardinality(String), state LowCardinality(String), action LowCardinality(String), start_us Int64, end_us Int64, spend_pico String, tokens Int64, calls Int64, failures Int64, unpriced Int64, usage_unknown Int64, limit_pico String, limit_tokens Nullable(Int64), forgiven_pico String, forgiven_tokens Int64, resets UInt32, open Int64, exposure_pico String, burn_short_pico String, burn_long_pico String, exhausts_us Nullable(Int64), value Nullable(Int64), previous Tuple(start_us Nullable(Int64), spend_pico String, tokens Nullable(Int64)), late_pico String, openings UInt32, included Map(String, Int64))') AS e
  FROM landing_signals WHERE topic = 'budget-status'
);

-- The newest status of each entity, alike in columns; merges keep the highest topic_offset, so read
-- with ORDER BY topic_offset DESC LIMIT 1 BY log_id, budget, entity.
CREATE TABLE IF NOT EXISTS budget_now ${CL} AS budget_status
ENGINE = ${R}ReplacingMergeTree(topic_offset)
ORDER BY (log_id, budget, entity)
SETTINGS ${D};

CREATE MATERIALIZED VIEW IF NOT EXISTS mv_budget_now ${CL} TO budget_now AS
SELECT * FROM budget_status;

-- Calls that had begun and not ended, by project: the newest snapshot of the topic live. The arrays
-- are of equal length. Merges keep the highest topic_offset, so read as budget_now is read.
CREATE TABLE IF NOT EXISTS in_flight ${CL} (
  project LowCardinality(String),
  at DateTime64(6, 'UTC'),
  providers Array(LowCardinality(String)),
  models Array(LowCardinality(String)),
  open Array(Int64),
  log_ts DateTime64(6, 'UTC'),
  log_id UUID,
  partition UInt16,
  topic_offset Int64
) ENGINE = ${R}ReplacingMergeTree(topic_offset)
ORDER BY (log_id, project)
SETTINGS ${D}, ttl_only_drop_parts = 1;

CREATE MATERIALIZED VIEW IF NOT EXISTS mv_in_flight ${CL} TO in_flight AS
SELECT e.project AS project, fromUnixTimestamp64Micro(e.at_us, 'UTC') AS at,
  arrayMap(x -> x.provider, e.open) AS providers, arrayMap(x -> x.model, e.open) AS models,
  arrayMap(x -> x.open, e.open) AS open, log_ts, log_id, partition, topic_offset
FROM (
  SELECT log_ts, log_id, partition, topic_offset,
    JSONExtract(record, 'Tuple(project LowCardinality(String), at_us Int64, open Array(Tuple(provider String, model String, open Int64)))') AS e
  FROM landing_signals WHERE topic = 'live' AND record != ''
);

-- The audit log: annotations whose metadata has an object "audit". Rows are only ever added. detail
-- is JSON text; call_id is nil where the entry speaks of no call.
CREATE TABLE IF NOT EXISTS audit ${CL} (
  at DateTime64(6, 'UTC') CODEC(Delta(8), ZSTD(1)),
  project LowCardinality(String),
  environment LowCardinality(String),
  service LowCardinality(String),
  action String CODEC(ZSTD(1)),
  user String CODEC(ZSTD(1)),
  model LowCardinality(String),
  call_id UUID CODEC(ZSTD(1)),
  detail String CODEC(ZSTD(3)),
  log_ts DateTime64(6, 'UTC') CODEC(Delta(8), ZSTD(1)),
  log_id UUID CODEC(ZSTD(1)),
  partition UInt16 CODEC(ZSTD(1)),
  origin Int64 CODEC(Delta(8), ZSTD(1)),
  idx UInt16 CODEC(Delta(2), ZSTD(1))
) ENGINE = ${R}MergeTree
PARTITION BY toYYYYMM(at)
ORDER BY (at, project, log_id, partition, origin, idx)
SETTINGS ${D}, ttl_only_drop_parts = 1;

CREATE MATERIALIZED VIEW IF NOT EXISTS mv_audit ${CL} TO audit AS
SELECT fromUnixTimestamp64Micro(e.ts_us, 'UTC') AS at, project, environment, service,
  e.text AS action, e.metadata.audit.user AS user, e.metadata.audit.model AS model,
  e.call_id AS call_id, JSONExtractRaw(line, 'metadata', 'audit', 'detail') AS detail,
  log_ts, log_id, partition, origin, idx
FROM (
  SELECT *, JSONExtract(line, 'Tuple(ts_us Int64, text String, call_id UUID, metadata Tuple(audit Tuple(user String, model String)))') AS e
  FROM event_lines
  WHERE startsWith(line, '{"kind":"annotation"') AND JSONHas(line, 'metadata', 'audit')
);

-- Entries from before this table. Sinks run on meanwhile: whoever reads takes each origin once.
INSERT INTO audit
SELECT ts AS at, project, environment, service, text AS action,
  JSONExtractString(metadata, 'audit', 'user') AS user,
  JSONExtractString(metadata, 'audit', 'model') AS model, call_id,
  JSONExtractRaw(metadata, 'audit', 'detail') AS detail,
  log_ts, log_id, partition, origin, idx
FROM annotations
WHERE JSONHas(metadata, 'audit')
  AND (log_id, partition, origin, idx) NOT IN (SELECT log_id, partition, origin, idx FROM audit);
