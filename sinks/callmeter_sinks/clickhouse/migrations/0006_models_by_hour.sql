-- Histograms by hour and model alone: what a chart of quantiles by hour reads. The rows of hist_1h keep
-- projects, environments, services, phases and states apart, three times as many buckets as are asked for.
-- Read as hist_1h is, from the hour on that rollup_begins names. A row has hundreds of buckets, so a
-- granule has few rows: a week is read without the rest of its month. docs/decisions/0022.
CREATE TABLE IF NOT EXISTS hist_models_1h ${CL} (
  start DateTime('UTC') CODEC(Delta(4), ZSTD(1)),
  provider LowCardinality(String),
  model LowCardinality(String),
  operation LowCardinality(String),
  latency SimpleAggregateFunction(sumMap, Map(Int16, UInt64)) CODEC(ZSTD(1)),
  ttft SimpleAggregateFunction(sumMap, Map(Int16, UInt64)) CODEC(ZSTD(1)),
  log_ts SimpleAggregateFunction(max, DateTime64(6, 'UTC')) CODEC(Delta(8), ZSTD(1))
) ENGINE = ${R}AggregatingMergeTree
PARTITION BY toYYYYMM(start)
ORDER BY (start, model, provider, operation)
SETTINGS ${D}, ttl_only_drop_parts = 1, index_granularity = 256;

CREATE MATERIALIZED VIEW IF NOT EXISTS mv_hist_models_1h ${CL} TO hist_models_1h AS
SELECT toStartOfHour(minute) AS start, provider, model, operation,
  sumMap(d.latency_hist) AS latency, sumMap(d.ttft_hist) AS ttft, max(d.log_ts) AS log_ts
FROM delta_lines AS d
WHERE notEmpty(d.latency_hist) OR notEmpty(d.ttft_hist)
GROUP BY start, provider, model, operation;

-- From which window on a rollup that came later is whole. Sums cannot be filled from an older rollup
-- while sinks add to both; but of a window that no stored row has reached when the view is there, the
-- view gets every row. A day more, for inserts that were under way. The epoch in a new store.
CREATE TABLE IF NOT EXISTS rollup_begins ${CL} (
  name String,
  start DateTime('UTC')
) ENGINE = ${R}MergeTree
ORDER BY name;

INSERT INTO rollup_begins
SELECT name, if(reached = toDateTime(0, 'UTC'), reached, toStartOfDay(reached) + toIntervalDay(2)) AS start
FROM (SELECT 'hist_models_1h' AS name, max(start) AS reached FROM hist_1h)
WHERE name NOT IN (SELECT name FROM rollup_begins);
