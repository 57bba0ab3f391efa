-- Sums of the meter's deltas per minute, hour and day, and the control totals of each checkpoint.
-- Read them as plain sums (min, max, sumMap) with GROUP BY: rows of one key need not be merged yet.

CREATE TABLE IF NOT EXISTS delta_lines ${CL} (
  minute DateTime('UTC'),
  project LowCardinality(String),
  environment LowCardinality(String),
  service LowCardinality(String),
  provider LowCardinality(String),
  model LowCardinality(String),
  operation LowCardinality(String),
  phase LowCardinality(String),
  status LowCardinality(String),
  calls UInt64,
  attempts UInt64,
  failures UInt64,
  usage Map(String, UInt64),
  cost Decimal(38, 12),
  unpriced UInt64,
  usage_unknown UInt64,
  latency_count UInt64,
  latency_sum_us UInt64,
  latency_min_us Nullable(UInt64),
  latency_max_us Nullable(UInt64),
  latency_hist Map(Int16, UInt64),
  ttft_count UInt64,
  ttft_hist Map(Int16, UInt64),
  first_at Nullable(DateTime64(6, 'UTC')),
  last_at Nullable(DateTime64(6, 'UTC')),
  log_ts DateTime64(6, 'UTC')
) ENGINE = Null;

CREATE MATERIALIZED VIEW IF NOT EXISTS mv_delta_lines ${CL} TO delta_lines AS
SELECT
  toDateTime(d.minute * 60, 'UTC') AS minute,
  d.project AS project, d.environment AS environment, d.service AS service,
  d.provider AS provider, d.model AS model, d.operation AS operation, d.phase AS phase,
  d.status AS status, d.calls AS calls, d.attempts AS attempts, d.failures AS failures,
  d.usage AS usage,
  reinterpret(toInt128(if(d.cost_pico = '', '0', d.cost_pico)), 'Decimal(38, 12)') AS cost,
  d.unpriced AS unpriced, d.usage_unknown AS usage_unknown,
  d.latency_count AS latency_count, d.latency_sum_us AS latency_sum_us,
  if(d.latency_count = 0, NULL, d.latency_min_us) AS latency_min_us,
  if(d.latency_count = 0, NULL, d.latency_max_us) AS latency_max_us,
  CAST(d.latency_hist, 'Map(Int16, UInt64)') AS latency_hist,
  d.ttft_count AS ttft_count,
  CAST(d.ttft_hist, 'Map(Int16, UInt64)') AS ttft_hist,
  if(d.first_us = 0, NULL, fromUnixTimestamp64Micro(d.first_us, 'UTC')) AS first_at,
  if(d.last_us = 0, NULL, fromUnixTimestamp64Micro(d.last_us, 'UTC')) AS last_at,
  log_ts
FROM (
  SELECT log_ts,
    JSONExtract(line, 'Tuple(minute Int64, project LowCardinality(String), environment LowCardinality(String), service LowCardinality(String), provider LowCardinality(String), model LowCardinality(String), operation LowCardinality(String), phase LowCardinality(String), status LowCardinality(String), calls UInt64, attempts UInt64, failures UInt64, usage Map(String, UInt64), cost_pico String, unpriced UInt64, usage_unknown UInt64, latency_count UInt64, latency_sum_us UInt64, latency_min_us Nullable(UInt64), latency_max_us Nullable(UInt64), latency_hist Map(String, UInt64), ttft_count UInt64, ttft_hist Map(String, UInt64), first_us Int64, last_us Int64)') AS d
  FROM (
    SELECT fromUnixTimestamp64Micro(JSONExtractInt(header, 'log_ts_us'), 'UTC') AS log_ts,
      arrayJoin(arrayPopBack(splitByChar('\n', body))) AS line
    FROM landing WHERE type = 'deltas'
  )
);

-- Per minute; calls counts every operation, so reports of calls filter on operation.
CREATE TABLE IF NOT EXISTS rollup_1m ${CL} (
  start DateTime('UTC') CODEC(Delta(4), ZSTD(1)),
  project LowCardinality(String),
  environment LowCardinality(String),
  service LowCardinality(String),
  provider LowCardinality(String),
  model LowCardinality(String),
  operation LowCardinality(String),
  phase LowCardinality(String),
  status LowCardinality(String),
  calls SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
  attempts SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
  failures SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
  input_tokens SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
  output_tokens SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
  usage SimpleAggregateFunction(sumMap, Map(String, UInt64)) CODEC(ZSTD(1)),
  cost SimpleAggregateFunction(sum, Decimal(38, 12)) CODEC(ZSTD(1)),
  unpriced SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
  usage_unknown SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
  latency_count SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
  latency_sum_us SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
  latency_min_us SimpleAggregateFunction(min, Nullable(UInt64)) CODEC(T64, ZSTD(1)),
  latency_max_us SimpleAggregateFunction(max, Nullable(UInt64)) CODEC(T64, ZSTD(1)),
  ttft_count SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
  first_at SimpleAggregateFunction(min, Nullable(DateTime64(6, 'UTC'))) CODEC(Delta(8), ZSTD(1)),
  last_at SimpleAggregateFunction(max, Nullable(DateTime64(6, 'UTC'))) CODEC(Delta(8), ZSTD(1)),
  log_ts SimpleAggregateFunction(max, DateTime64(6, 'UTC')) CODEC(Delta(8), ZSTD(1))
) ENGINE = ${R}AggregatingMergeTree
PARTITION BY toYYYYMM(start)
ORDER BY (project, start, model, provider, operation, status, environment, service, phase)
SETTINGS ${D}, ttl_only_drop_parts = 1;

CREATE MATERIALIZED VIEW IF NOT EXISTS mv_rollup_1m ${CL} TO rollup_1m AS
SELECT
  minute AS start, project, environment, service, provider, model, operation, phase, status,
  sum(d.calls) AS calls, sum(d.attempts) AS attempts, sum(d.failures) AS failures,
  sum(d.usage['input']) AS input_tokens, sum(d.usage['output']) AS output_tokens,
  sumMap(d.usage) AS usage, sum(d.cost) AS cost,
  sum(d.unpriced) AS unpriced, sum(d.usage_unknown) AS usage_unknown,
  sum(d.latency_count) AS latency_count, sum(d.latency_sum_us) AS latency_sum_us,
  min(d.latency_min_us) AS latency_min_us, max(d.latency_max_us) AS latency_max_us,
  sum(d.ttft_count) AS ttft_count,
  min(d.first_at) AS first_at, max(d.last_at) AS last_at, max(d.log_ts) AS log_ts
FROM delta_lines AS d
GROUP BY start, project, environment, service, provider, model, operation, phase, status;

-- Histograms per minute: bucket of callmeter.schema.histogram to count. No row without a duration.
CREATE TABLE IF NOT EXISTS hist_1m ${CL} (
  start DateTime('UTC') CODEC(Delta(4), ZSTD(1)),
  project LowCardinality(String),
  environment LowCardinality(String),
  service LowCardinality(String),
  provider LowCardinality(String),
  model LowCardinality(String),
  operation LowCardinality(String),
  phase LowCardinality(String),
  status LowCardinality(String),
  latency SimpleAggregateFunction(sumMap, Map(Int16, UInt64)) CODEC(ZSTD(1)),
  ttft SimpleAggregateFunction(sumMap, Map(Int16, UInt64)) CODEC(ZSTD(1)),
  log_ts SimpleAggregateFunction(max, DateTime64(6, 'UTC')) CODEC(Delta(8), ZSTD(1))
) ENGINE = ${R}AggregatingMergeTree
PARTITION BY toYYYYMM(start)
ORDER BY (project, start, model, provider, operation, status, environment, service, phase)
SETTINGS ${D}, ttl_only_drop_parts = 1;

CREATE MATERIALIZED VIEW IF NOT EXISTS mv_hist_1m ${CL} TO hist_1m AS
SELECT minute AS start, project, environment, service, provider, model, operation, phase, status,
  sumMap(d.latency_hist) AS latency, sumMap(d.ttft_hist) AS ttft, max(d.log_ts) AS log_ts
FROM delta_lines AS d
WHERE notEmpty(d.latency_hist) OR notEmpty(d.ttft_hist)
GROUP BY start, project, environment, service, provider, model, operation, phase, status;

-- Per hour; calls counts every operation, so reports of calls filter on operation.
CREATE TABLE IF NOT EXISTS rollup_1h ${CL} (
  start DateTime('UTC') CODEC(Delta(4), ZSTD(1)),
  project LowCardinality(String),
  environment LowCardinality(String),
  service LowCardinality(String),
  provider LowCardinality(String),
  model LowCardinality(String),
  operation LowCardinality(String),
  phase LowCardinality(String),
  status LowCardinality(String),
  calls SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
  attempts SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
  failures SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
  input_tokens SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
  output_tokens SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
  usage SimpleAggregateFunction(sumMap, Map(String, UInt64)) CODEC(ZSTD(1)),
  cost SimpleAggregateFunction(sum, Decimal(38, 12)) CODEC(ZSTD(1)),
  unpriced SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
  usage_unknown SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
  latency_count SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
  latency_sum_us SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
  latency_min_us SimpleAggregateFunction(min, Nullable(UInt64)) CODEC(T64, ZSTD(1)),
  latency_max_us SimpleAggregateFunction(max, Nullable(UInt64)) CODEC(T64, ZSTD(1)),
  ttft_count SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
  first_at SimpleAggregateFunction(min, Nullable(DateTime64(6, 'UTC'))) CODEC(Delta(8), ZSTD(1)),
  last_at SimpleAggregateFunction(max, Nullable(DateTime64(6, 'UTC'))) CODEC(Delta(8), ZSTD(1)),
  log_ts SimpleAggregateFunction(max, DateTime64(6, 'UTC')) CODEC(Delta(8), ZSTD(1))
) ENGINE = ${R}AggregatingMergeTree
PARTITION BY toYYYYMM(start)
ORDER BY (project, start, model, provider, operation, status, environment, service, phase)
SETTINGS ${D}, ttl_only_drop_parts = 1;

CREATE MATERIALIZED VIEW IF NOT EXISTS mv_rollup_1h ${CL} TO rollup_1h AS
SELECT
  toStartOfHour(minute) AS start, project, environment, service, provider, model, operation, phase, status,
  sum(d.calls) AS calls, sum(d.attempts) AS attempts, sum(d.failures) AS failures,
  sum(d.usage['input']) AS input_tokens, sum(d.usage['output']) AS output_tokens,
  sumMap(d.usage) AS usage, sum(d.cost) AS cost,
  sum(d.unpriced) AS unpriced, sum(d.usage_unknown) AS usage_unknown,
  sum(d.latency_count) AS latency_count, sum(d.latency_sum_us) AS latency_sum_us,
  min(d.latency_min_us) AS latency_min_us, max(d.latency_max_us) AS latency_max_us,
  sum(d.ttft_count) AS ttft_count,
  min(d.first_at) AS first_at, max(d.last_at) AS last_at, max(d.log_ts) AS log_ts
FROM delta_lines AS d
GROUP BY start, project, environment, service, provider, model, operation, phase, status;

-- Histograms per hour: bucket of callmeter.schema.histogram to count. No row without a duration.
CREATE TABLE IF NOT EXISTS hist_1h ${CL} (
  start DateTime('UTC') CODEC(Delta(4), ZSTD(1)),
  project LowCardinality(String),
  environment LowCardinality(String),
  service LowCardinality(String),
  provider LowCardinality(String),
  model LowCardinality(String),
  operation LowCardinality(String),
  phase LowCardinality(String),
  status LowCardinality(String),
  latency SimpleAggregateFunction(sumMap, Map(Int16, UInt64)) CODEC(ZSTD(1)),
  ttft SimpleAggregateFunction(sumMap, Map(Int16, UInt64)) CODEC(ZSTD(1)),
  log_ts SimpleAggregateFunction(max, DateTime64(6, 'UTC')) CODEC(Delta(8), ZSTD(1))
) ENGINE = ${R}AggregatingMergeTree
PARTITION BY toYYYYMM(start)
ORDER BY (project, start, model, provider, operation, status, environment, service, phase)
SETTINGS ${D}, ttl_only_drop_parts = 1;

CREATE MATERIALIZED VIEW IF NOT EXISTS mv_hist_1h ${CL} TO hist_1h AS
SELECT toStartOfHour(minute) AS start, project, environment, service, provider, model, operation, phase, status,
  sumMap(d.latency_hist) AS latency, sumMap(d.ttft_hist) AS ttft, max(d.log_ts) AS log_ts
FROM delta_lines AS d
WHERE notEmpty(d.latency_hist) OR notEmpty(d.ttft_hist)
GROUP BY start, project, environment, service, provider, model, operation, phase, status;

-- Per day; calls counts every operation, so reports of calls filter on operation.
CREATE TABLE IF NOT EXISTS rollup_1d ${CL} (
  start DateTime('UTC') CODEC(Delta(4), ZSTD(1)),
  project LowCardinality(String),
  environment LowCardinality(String),
  service LowCardinality(String),
  provider LowCardinality(String),
  model LowCardinality(String),
  operation LowCardinality(String),
  phase LowCardinality(String),
  status LowCardinality(String),
  calls SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
  attempts SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
  failures SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
  input_tokens SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
  output_tokens SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
  usage SimpleAggregateFunction(sumMap, Map(String, UInt64)) CODEC(ZSTD(1)),
  cost SimpleAggregateFunction(sum, Decimal(38, 12)) CODEC(ZSTD(1)),
  unpriced SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
  usage_unknown SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
  latency_count SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
  latency_sum_us SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
  latency_min_us SimpleAggregateFunction(min, Nullable(UInt64)) CODEC(T64, ZSTD(1)),
  latency_max_us SimpleAggregateFunction(max, Nullable(UInt64)) CODEC(T64, ZSTD(1)),
  ttft_count SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
  first_at SimpleAggregateFunction(min, Nullable(DateTime64(6, 'UTC'))) CODEC(Delta(8), ZSTD(1)),
  last_at SimpleAggregateFunction(max, Nullable(DateTime64(6, 'UTC'))) CODEC(Delta(8), ZSTD(1)),
  log_ts SimpleAggregateFunction(max, DateTime64(6, 'UTC')) CODEC(Delta(8), ZSTD(1))
) ENGINE = ${R}AggregatingMergeTree
PARTITION BY toYYYYMM(start)
ORDER BY (project, start, model, provider, operation, status, environment, service, phase)
SETTINGS ${D}, ttl_only_drop_parts = 1;

CREATE MATERIALIZED VIEW IF NOT EXISTS mv_rollup_1d ${CL} TO rollup_1d AS
SELECT
  toStartOfDay(minute) AS start, project, environment, service, provider, model, operation, phase, status,
  sum(d.calls) AS calls, sum(d.attempts) AS attempts, sum(d.failures) AS failures,
  sum(d.usage['input']) AS input_tokens, sum(d.usage['output']) AS output_tokens,
  sumMap(d.usage) AS usage, sum(d.cost) AS cost,
  sum(d.unpriced) AS unpriced, sum(d.usage_unknown) AS usage_unknown,
  sum(d.latency_count) AS latency_count, sum(d.latency_sum_us) AS latency_sum_us,
  min(d.latency_min_us) AS latency_min_us, max(d.latency_max_us) AS latency_max_us,
  sum(d.ttft_count) AS ttft_count,
  min(d.first_at) AS first_at, max(d.last_at) AS last_at, max(d.log_ts) AS log_ts
FROM delta_lines AS d
GROUP BY start, project, environment, service, provider, model, operation, phase, status;

-- Histograms per day: bucket of callmeter.schema.histogram to count. No row without a duration.
CREATE TABLE IF NOT EXISTS hist_1d ${CL} (
  start DateTime('UTC') CODEC(Delta(4), ZSTD(1)),
  project LowCardinality(String),
  environment LowCardinality(String),
  service LowCardinality(String),
  provider LowCardinality(String),
  model LowCardinality(String),
  operation LowCardinality(String),
  phase LowCardinality(String),
  status LowCardinality(String),
  latency SimpleAggregateFunction(sumMap, Map(Int16, UInt64)) CODEC(ZSTD(1)),
  ttft SimpleAggregateFunction(sumMap, Map(Int16, UInt64)) CODEC(ZSTD(1)),
  log_ts SimpleAggregateFunction(max, DateTime64(6, 'UTC')) CODEC(Delta(8), ZSTD(1))
) ENGINE = ${R}AggregatingMergeTree
PARTITION BY toYYYYMM(start)
ORDER BY (project, start, model, provider, operation, status, environment, service, phase)
SETTINGS ${D}, ttl_only_drop_parts = 1;

CREATE MATERIALIZED VIEW IF NOT EXISTS mv_hist_1d ${CL} TO hist_1d AS
SELECT toStartOfDay(minute) AS start, project, environment, service, provider, model, operation, phase, status,
  sumMap(d.latency_hist) AS latency, sumMap(d.ttft_hist) AS ttft, max(d.log_ts) AS log_ts
FROM delta_lines AS d
WHERE notEmpty(d.latency_hist) OR notEmpty(d.ttft_hist)
GROUP BY start, project, environment, service, provider, model, operation, phase, status;

-- What the meter says of each checkpoint as a whole; first and last are origins, both included.
-- calls counts model operations, operations the others. verify compares with the raw rows.
CREATE TABLE IF NOT EXISTS rollup_controls ${CL} (
  log_id UUID CODEC(ZSTD(1)),
  partition UInt16 CODEC(ZSTD(1)),
  first Int64 CODEC(Delta(8), ZSTD(1)),
  last Int64 CODEC(Delta(8), ZSTD(1)),
  envelopes UInt64 CODEC(T64, ZSTD(1)),
  duplicates UInt64 CODEC(T64, ZSTD(1)),
  refused_envelopes UInt64 CODEC(T64, ZSTD(1)),
  events UInt64 CODEC(T64, ZSTD(1)),
  refused UInt64 CODEC(T64, ZSTD(1)),
  calls UInt64 CODEC(T64, ZSTD(1)),
  operations UInt64 CODEC(T64, ZSTD(1)),
  failures UInt64 CODEC(T64, ZSTD(1)),
  costs UInt64 CODEC(T64, ZSTD(1)),
  cost Decimal(38, 12) CODEC(ZSTD(1)),
  unpriced UInt64 CODEC(T64, ZSTD(1)),
  usage_unknown UInt64 CODEC(T64, ZSTD(1)),
  usage Map(LowCardinality(String), UInt64) CODEC(ZSTD(1)),
  metered_offset Int64 CODEC(Delta(8), ZSTD(1)),
  log_ts DateTime64(6, 'UTC') CODEC(Delta(8), ZSTD(1))
) ENGINE = ${R}MergeTree
PARTITION BY toYYYYMM(log_ts)
ORDER BY (log_id, partition, first)
SETTINGS ${D}, ttl_only_drop_parts = 1;

CREATE MATERIALIZED VIEW IF NOT EXISTS mv_rollup_controls ${CL} TO rollup_controls AS
SELECT
  h.log AS log_id, partition, h.first AS first, h.last AS last,
  c.envelopes AS envelopes, c.duplicates AS duplicates,
  c.refused_envelopes AS refused_envelopes, c.events AS events, c.refused AS refused,
  c.calls AS calls, c.operations AS operations, c.failures AS failures, c.costs AS costs,
  reinterpret(toInt128(if(c.cost_pico = '', '0', c.cost_pico)), 'Decimal(38, 12)') AS cost,
  c.unpriced AS unpriced, c.usage_unknown AS usage_unknown, c.usage AS usage,
  metered_offset, fromUnixTimestamp64Micro(h.log_ts_us, 'UTC') AS log_ts
FROM (
  SELECT partition, metered_offset, h, h.controls AS c
  FROM (
    SELECT partition, metered_offset,
      JSONExtract(header, 'Tuple(log UUID, first Int64, last Int64, part UInt32, log_ts_us Int64, controls Tuple(envelopes UInt64, duplicates UInt64, refused_envelopes UInt64, events UInt64, refused UInt64, calls UInt64, operations UInt64, failures UInt64, costs UInt64, cost_pico String, unpriced UInt64, usage_unknown UInt64, usage Map(LowCardinality(String), UInt64)))') AS h
    FROM landing WHERE type = 'deltas'
  )
  WHERE h.part = 0
);
