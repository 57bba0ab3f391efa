"""Rollups of whole days made anew from single rows: the sums that the meter's deltas add up to.

Deltas cannot be taken out of a sum again, so whole days are deleted and summed from ``calls`` and
``costs``. ``verify`` compares exactly these two, so afterwards they agree to the pico.
"""

# ruff: noqa: S608 - only text of this package is put together; every value is bound

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta

from callmeter_sinks.buckets import ABOUT_SQL, bucket_sql
from callmeter_sinks.checks.rollups import CHUNK_ROWS
from callmeter_sinks.clickhouse.store import Store
from callmeter_sinks.queries.dimensions import ROLLUP_DIMENSIONS, Binding, Period

_DIMS = ", ".join(ROLLUP_DIMENSIONS)
#: Dimensions of ``hist_models_1h``.
_MODELS = "provider, model, operation"
_LEVELS = {"1m": "toStartOfMinute", "1h": "toStartOfHour", "1d": "toStartOfDay"}
_WAIT = {"lightweight_deletes_sync": "2"}
#: The engine would take an insert of the same sums for a repeated one, and drop it.
_ANEW = {"insert_deduplicate": "0", "max_partitions_per_insert_block": "0"}
_EPOCH = date(1970, 1, 1)
_SUM_COLUMNS = (
    f"start, {_DIMS}, calls, attempts, failures, input_tokens, output_tokens, usage, cost, "
    "unpriced, usage_unknown, latency_count, latency_sum_us, latency_min_us, latency_max_us, "
    "ttft_count, first_at, last_at, log_ts"
)
_HISTOGRAM_COLUMNS = f"start, {_DIMS}, latency, ttft, log_ts"

_SUMS = """
SELECT {window}(toDateTime(started_at, 'UTC')) AS start, {dims},
  count() AS calls, sum(toUInt64(c.attempts)) AS attempts, countIf(c.status != 'ok') AS failures,
  sum(ifNull(c.input_tokens, 0)) AS input_tokens,
  sum(ifNull(c.output_tokens, 0)) AS output_tokens,
  sumMap(CAST(c.usage, 'Map(String, UInt64)')) AS usage,
  sum(ifNull(c.cost, toDecimal128(0, 12))) AS cost,
  sum(toUInt64(c.unpriced)) AS unpriced, sum(toUInt64(c.usage_unknown)) AS usage_unknown,
  count(c.latency_us) AS latency_count, sum(ifNull(c.latency_us, 0)) AS latency_sum_us,
  min(c.latency_us) AS latency_min_us, max(c.latency_us) AS latency_max_us,
  count(c.ttft_us) AS ttft_count,
  min(toNullable(c.started_at)) AS first_at, max(toNullable(c.started_at)) AS last_at,
  max(c.log_ts) AS log_ts
FROM calls AS c WHERE {within} GROUP BY start, {dims}
"""
_COSTS = """
SELECT {window}(toDateTime(started_at, 'UTC')) AS start, {dims},
  toUInt64(0) AS calls, toUInt64(0) AS attempts, toUInt64(0) AS failures,
  toUInt64(0) AS input_tokens, toUInt64(0) AS output_tokens,
  CAST(map(), 'Map(String, UInt64)') AS usage, sum(c.cost) AS cost,
  toUInt64(0) AS unpriced, toUInt64(0) AS usage_unknown,
  toUInt64(0) AS latency_count, toUInt64(0) AS latency_sum_us,
  CAST(NULL, 'Nullable(UInt64)') AS latency_min_us,
  CAST(NULL, 'Nullable(UInt64)') AS latency_max_us, toUInt64(0) AS ttft_count,
  CAST(NULL, 'Nullable(DateTime64(6, \\'UTC\\'))') AS first_at,
  CAST(NULL, 'Nullable(DateTime64(6, \\'UTC\\'))') AS last_at,
  max(c.log_ts) AS log_ts
FROM costs AS c WHERE {within} GROUP BY start, {dims}
"""
_HISTOGRAM = """
SELECT start, {dims}, sumMapIf(map(bucket, n), name = 'latency') AS latency,
  sumMapIf(map(bucket, n), name = 'ttft') AS ttft, max(seen) AS log_ts
FROM (
  SELECT {window}(toDateTime(started_at, 'UTC')) AS start, {dims}, name,
    toInt16({bucket}) AS bucket, count() AS n, max(log_ts) AS seen
  FROM (
    SELECT started_at, {dims}, log_ts, name, us,
      {about} AS about
    FROM (
      SELECT started_at, {dims}, log_ts, pair.1 AS name, assumeNotNull(pair.2) AS us
      FROM (
        SELECT *, arrayJoin([('latency', latency_us), ('ttft', ttft_us)]) AS pair
        FROM calls WHERE {within}
      )
      WHERE pair.2 IS NOT NULL
    )
  )
  GROUP BY start, {dims}, name, bucket
)
GROUP BY start, {dims}
"""


def portions(store: Store, days: Iterable[date]) -> Iterator[list[date]]:
    """Days in order, as many at a time as have ``CHUNK_ROWS`` single rows, one at least."""
    wanted = sorted(days)
    counts = dict(
        store.query(
            "SELECT day, sum(n) FROM (SELECT toDate(started_at, 'UTC') AS day, count() AS n "
            "FROM calls GROUP BY day UNION ALL SELECT toDate(started_at, 'UTC') AS day, "
            "count() AS n FROM costs GROUP BY day) GROUP BY day"
        ).rows
    )
    portion: list[date] = []
    rows = 0
    for day in wanted:
        if portion and rows + counts.get(day, 0) > CHUNK_ROWS:
            yield portion
            portion, rows = [], 0
        portion.append(day)
        rows += counts.get(day, 0)
    if portion:
        yield portion


def rebuild_days(store: Store, days: Sequence[date]) -> None:
    """Delete and sum anew all rollups of these days (UTC, event time). May be repeated."""
    tables = [f"{kind}_{suffix}" for kind in ("rollup", "hist") for suffix in _LEVELS]
    for table in (*tables, "hist_models_1h"):
        binding = Binding()
        within = _within("toDateTime64(start, 6, 'UTC')", days, binding)
        store.command(f"DELETE FROM {table} WHERE {within}", binding.values, _WAIT)
    for suffix, window in _LEVELS.items():
        for select in (_SUMS, _COSTS):
            _insert(store, f"rollup_{suffix} ({_SUM_COLUMNS})", select, window, days)
        into = f"hist_{suffix} ({_HISTOGRAM_COLUMNS})"
        _insert(store, into, _HISTOGRAM, window, days)
    into = f"hist_models_1h (start, {_MODELS}, latency, ttft, log_ts)"
    _insert(store, into, _HISTOGRAM, _LEVELS["1h"], days, dims=_MODELS)


def _insert(
    store: Store, into: str, select: str, window: str, days: Sequence[date], *, dims: str = _DIMS
) -> None:
    binding = Binding()
    within = _within("started_at", days, binding)
    bucket = bucket_sql(binding) if select is _HISTOGRAM else ""
    sql = select.format(window=window, dims=dims, within=within, bucket=bucket, about=ABOUT_SQL)
    store.command(f"INSERT INTO {into} {sql}", binding.values, _ANEW)


def _within(column: str, days: Sequence[date], binding: Binding) -> str:
    """On these days: by number, and between the first and the last, which leaves parts unread."""
    since = datetime(days[0].year, days[0].month, days[0].day, tzinfo=UTC)
    until = datetime(days[-1].year, days[-1].month, days[-1].day, tzinfo=UTC) + timedelta(days=1)
    numbers = binding.add([(day - _EPOCH).days for day in days], "Array(UInt32)")
    between = Period(since, until).sql(column, binding)
    return " AND ".join([*between, f"has({numbers}, toUInt32(toDate({column}, 'UTC')))"])
