-- Where the sinks are. ClickHouse is the truth about progress; Kafka's committed offsets are not.
-- Placeholders: ${CL} ON CLUSTER or nothing, ${R} "Replicated" or nothing, ${D} deduplication windows.

-- What a sink is about to insert, written before the insert. The newest by (generation, owner, last)
-- counts. records and crc32 (of headers and sizes, in order) show a rebuild that it is the same range.
CREATE TABLE IF NOT EXISTS sink_intents ${CL} (
  sink LowCardinality(String),
  log_id UUID,
  topic LowCardinality(String),
  partition UInt16,
  generation UInt64,
  owner UUID,
  first Int64,
  last Int64,
  origin_first Int64,
  origin_next Int64,
  records UInt32,
  events UInt64,
  crc32 UInt32,
  written_at DateTime64(6, 'UTC') DEFAULT now64(6, 'UTC')
) ENGINE = ${R}ReplacingMergeTree(last)
ORDER BY (sink, topic, partition, log_id, generation, owner);

-- Who may write a partition: the highest (generation, owner).
CREATE TABLE IF NOT EXISTS sink_claims ${CL} (
  sink LowCardinality(String),
  topic LowCardinality(String),
  partition UInt16,
  generation UInt64,
  owner UUID,
  host String,
  pid UInt32,
  claimed_at DateTime64(6, 'UTC') DEFAULT now64(6, 'UTC')
) ENGINE = ${R}MergeTree
ORDER BY (sink, topic, partition, generation, owner);

-- Records that ClickHouse refuses: every rebuild leaves them out.
CREATE TABLE IF NOT EXISTS sink_quarantine ${CL} (
  sink LowCardinality(String),
  log_id UUID,
  topic LowCardinality(String),
  partition UInt16,
  offset Int64,
  origin Int64,
  code Int32,
  reason String CODEC(ZSTD(3)),
  record String CODEC(ZSTD(3)),
  quarantined_at DateTime64(6, 'UTC') DEFAULT now64(6, 'UTC')
) ENGINE = ${R}MergeTree
ORDER BY (sink, topic, partition, log_id, offset);

-- Ranges of origins that never reached the store: what verify calls unverifiable.
CREATE TABLE IF NOT EXISTS sink_losses ${CL} (
  sink LowCardinality(String),
  log_id UUID,
  topic LowCardinality(String),
  partition UInt16,
  origin_first Int64,
  origin_last Int64,
  first Int64,
  last Int64,
  reason LowCardinality(String),
  detail String,
  accepted_at DateTime64(6, 'UTC') DEFAULT now64(6, 'UTC')
) ENGINE = ${R}MergeTree
ORDER BY (sink, topic, partition, log_id, origin_first);
