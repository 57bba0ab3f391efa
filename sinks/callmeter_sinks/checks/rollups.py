"""Rollups against raw rows, per minute and dimension; hours and days against minutes."""

# ruff: noqa: S608 - only text of this package is put together; every value is bound

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

from callmeter_sinks.buckets import ABOUT_SQL, bucket_sql
from callmeter_sinks.checks.outcome import Check, Comparison, Unverifiable, settled
from callmeter_sinks.checks.two_sides import Side, compare
from callmeter_sinks.clickhouse.store import Store
from callmeter_sinks.queries.dimensions import ROLLUP_DIMENSIONS, Binding, Period, epoch_us, floor

#: Rows of the days that are compared together, whatever the length of the period.
CHUNK_ROWS = 2_000_000
#: Raw rows that one statement groups by minute, about: bounds its memory, and how long an engine in
#: this process answers nobody else. Each statement looks through every part again, so not fewer.
PIECE_ROWS = 700_000

_MEASURES = {
    "calls": "sum",
    "attempts": "sum",
    "failures": "sum",
    "input_tokens": "sum",
    "output_tokens": "sum",
    "usage": "sumMap",
    "cost": "sum",
    "unpriced": "sum",
    "usage_unknown": "sum",
    "latency_count": "sum",
    "latency_sum_us": "sum",
    "latency_min_us": "min",
    "latency_max_us": "max",
    "ttft_count": "sum",
}
_DIMS = ", ".join(ROLLUP_DIMENSIONS)
_HOUR = timedelta(hours=1)
_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class _Chunk:
    """Half-open; both on whole days but at the ends of the period, a piece's on whole hours.

    ``rows``: how many raw rows it holds; not counted for a piece.
    """

    since: datetime
    until: datetime
    rows: int = 0

    def sql(self, column: str, binding: Binding) -> str:
        return " AND ".join(Period(self.since, self.until).sql(column, binding))


def check_rollups(
    store: Store, period: Period, horizons: Mapping[str, datetime]
) -> tuple[list[Check], list[Unverifiable]]:
    """In event time, chunk by chunk; what retention may have touched is left out and said."""
    period = period.in_minutes()
    gone = max((horizons[t] for t in ("calls", "costs") if t in horizons), default=None)
    minutes_from = max(
        (horizons[t] for t in ("rollup_1m", "hist_1m") if t in horizons), default=None
    )
    totals = Comparison()
    coarse = {"hours": Comparison(), "days": Comparison()}
    models = Comparison()
    removed: list[_Chunk] = []
    for chunk in _chunks(store, period):
        if gone is not None and chunk.since < gone:
            removed.append(chunk)
            continue
        minutes = minutes_from is None or chunk.since >= minutes_from
        base = "1m" if minutes else "1h"
        for piece in _pieces(chunk):
            totals.add(settled(partial(_raw_against, store, piece, base)))
        for name in ("latency", "ttft"):
            totals.add(settled(partial(_histograms, store, chunk, name, base)))
        for name, suffix, window in (("hours", "1h", 3600), ("days", "1d", 86400)):
            inner = _whole(chunk, window)
            if inner is not None and suffix != base:
                coarse[name].add(settled(partial(_levels, store, inner, base, suffix)))
            if inner is not None and name == "hours":
                for kind in ("latency", "ttft"):
                    models.add(settled(partial(_models, store, inner, kind)))
    checks = totals.checks()
    for name, found in coarse.items():
        checks += found.checks(f"{{}} ({name})")
    return checks + models.checks("{} (hours by model)"), _said(removed)


def _chunks(store: Store, period: Period) -> Iterator[_Chunk]:
    """The days that hold anything on either side, joined until ``CHUNK_ROWS`` raw rows."""
    binding = Binding()
    calls = " AND ".join(period.sql("started_at", binding)) or "1"
    rollups = " AND ".join(period.sql("toDateTime64(start, 6, 'UTC')", binding)) or "1"
    answer = store.query(
        "SELECT day, sum(n) FROM ("
        f"SELECT toStartOfDay(started_at) AS day, count() AS n FROM calls WHERE {calls} "
        "GROUP BY day UNION ALL SELECT toStartOfDay(started_at) AS day, count() AS n FROM costs "
        f"WHERE {calls} GROUP BY day UNION ALL SELECT toStartOfDay(start) AS day, count() AS n "
        f"FROM rollup_1h WHERE {rollups} GROUP BY day) GROUP BY day ORDER BY day",
        binding.values,
    )
    first: datetime | None = None
    last: datetime | None = None
    rows = 0
    for day, count in answer.rows:
        if first is not None and last is not None and rows + count > CHUNK_ROWS:
            yield _clipped(first, last, period, rows)
            first, rows = None, 0
        first = first or day
        last, rows = day, rows + count
    if first is not None and last is not None:
        yield _clipped(first, last, period, rows)


def _clipped(first: datetime, last: datetime, period: Period, rows: int) -> _Chunk:
    since = first if period.since is None else max(first, period.since)
    until = last + _DAY if period.until is None else min(last + _DAY, period.until)
    return _Chunk(since, until, rows)


def _pieces(chunk: _Chunk) -> Iterator[_Chunk]:
    """A chunk in equal spans of ``PIECE_ROWS`` rows on average, cut at whole hours.

    A row and the minute or hour it is summed in lie in the same piece, so the pieces' comparisons
    together are the chunk's.
    """
    hours = max(-((chunk.since - chunk.until) // _HOUR), 1)
    step = -(-hours // max(-(-chunk.rows // PIECE_ROWS), 1)) * _HOUR
    since = chunk.since
    while since < chunk.until:
        until = min(floor(since, _HOUR) + step, chunk.until)
        yield _Chunk(since, until)
        since = until


def _whole(chunk: _Chunk, window_s: int) -> _Chunk | None:
    """The part of a chunk that is whole windows."""
    first = -(-epoch_us(chunk.since) // (window_s * 1_000_000)) * window_s
    last = epoch_us(chunk.until) // (window_s * 1_000_000) * window_s
    if first >= last:
        return None
    zone = chunk.since.tzinfo
    return _Chunk(datetime.fromtimestamp(first, zone), datetime.fromtimestamp(last, zone))


def _raw_against(store: Store, chunk: _Chunk, suffix: str) -> Comparison:
    """Single rows, grouped as a rollup is, against that rollup."""
    window = {"1m": "toStartOfMinute", "1h": "toStartOfHour"}[suffix]
    binding = Binding()
    within = chunk.sql("started_at", binding)
    calls = (
        f"SELECT {window}(toDateTime(started_at, 'UTC')) AS w, {_DIMS}, count() AS calls, "
        "sum(attempts) AS attempts, countIf(status != 'ok') AS failures, "
        "sum(ifNull(c.input_tokens, 0)) AS input_tokens, "
        "sum(ifNull(c.output_tokens, 0)) AS output_tokens, "
        "sumMap(CAST(c.usage, 'Map(String, UInt64)')) AS usage, sum(ifNull(c.cost, 0)) AS cost, "
        "sum(toUInt64(c.unpriced)) AS unpriced, sum(toUInt64(c.usage_unknown)) AS usage_unknown, "
        "count(latency_us) AS latency_count, sum(ifNull(latency_us, 0)) AS latency_sum_us, "
        "min(latency_us) AS latency_min_us, max(latency_us) AS latency_max_us, "
        f"count(ttft_us) AS ttft_count FROM calls AS c WHERE {within} GROUP BY w, {_DIMS}"
    )
    nothing = ", ".join(
        {
            "cost": "cost",
            "usage": "CAST(map(), 'Map(String, UInt64)') AS usage",
            "latency_min_us": "CAST(NULL, 'Nullable(UInt64)') AS latency_min_us",
            "latency_max_us": "CAST(NULL, 'Nullable(UInt64)') AS latency_max_us",
        }.get(name, f"toUInt64(0) AS {name}")
        for name in _MEASURES
    )
    costs = (
        f"SELECT {window}(toDateTime(started_at, 'UTC')) AS w, {_DIMS}, {nothing} "
        f"FROM costs WHERE {within}"
    )
    rollups = Side([_rollup(chunk, suffix, "start", binding)])
    keys = ["w", *ROLLUP_DIMENSIONS]
    return compare(store, keys, _MEASURES, (Side([calls, costs]), rollups), binding)


def _levels(store: Store, chunk: _Chunk, finer: str, coarser: str) -> Comparison:
    """A rollup against the finer one it must be the sum of."""
    window = {"1h": "toStartOfHour", "1d": "toStartOfDay"}[coarser]
    binding = Binding()
    return compare(
        store, ["w", *ROLLUP_DIMENSIONS], _MEASURES,
        (
            Side([_rollup(chunk, finer, f"{window}(start)", binding)]),
            Side([_rollup(chunk, coarser, "start", binding)]),
        ),
        binding,
    )  # fmt: skip


def _rollup(chunk: _Chunk, suffix: str, window: str, binding: Binding) -> str:
    within = chunk.sql("toDateTime64(start, 6, 'UTC')", binding)
    measures = ", ".join(f"r.{name} AS {name}" for name in _MEASURES)
    return f"SELECT {window} AS w, {_DIMS}, {measures} FROM rollup_{suffix} AS r WHERE {within}"


def _histograms(store: Store, chunk: _Chunk, name: str, suffix: str) -> Comparison:
    """Counts by bucket. The bucket of a raw duration is decided in integers, as the meter does."""
    binding = Binding()
    raw = (
        f"SELECT toInt32({bucket_sql(binding)}) AS bucket, count() AS n "
        f"FROM (SELECT us, {ABOUT_SQL} AS about FROM "
        f"(SELECT assumeNotNull({name}_us) AS us FROM calls WHERE {name}_us IS NOT NULL "
        f"AND {chunk.sql('started_at', binding)})) GROUP BY bucket"
    )
    within = chunk.sql("toDateTime64(start, 6, 'UTC')", binding)
    rollups = (
        "SELECT toInt32(pair.1) AS bucket, pair.2 AS n FROM "
        f"(SELECT arrayJoin(CAST(sumMap({name}), 'Array(Tuple(Int16, UInt64))')) AS pair "
        f"FROM hist_{suffix} WHERE {within})"
    )
    found = compare(store, ["bucket"], {"n": "sum"}, (Side([raw]), Side([rollups])), binding)
    what = f"{name} histogram"
    return Comparison({what: found.totals["n"]}, {what: found.differing["n"]})


def _models(store: Store, chunk: _Chunk, name: str) -> Comparison:
    """Histograms by hour and model against those that keep more apart, where both are whole."""
    binding = Binding()
    begin = "(SELECT max(start) FROM rollup_begins WHERE name = 'hist_models_1h')"
    within = chunk.sql("toDateTime64(start, 6, 'UTC')", binding)
    keys = "provider, model, operation"
    pairs = f"arrayJoin(CAST(sumMap({name}), 'Array(Tuple(Int16, UInt64))')) AS pair"
    finer, coarser = (
        f"SELECT {keys}, toInt32(pair.1) AS bucket, pair.2 AS n FROM (SELECT {keys}, {pairs} "
        f"FROM {table} WHERE {within} AND start >= {begin} GROUP BY {keys})"
        for table in ("hist_1h", "hist_models_1h")
    )
    sides = (Side([finer]), Side([coarser]))
    found = compare(store, [*keys.split(", "), "bucket"], {"n": "sum"}, sides, binding)
    what = f"{name} histogram"
    return Comparison({what: found.totals["n"]}, {what: found.differing["n"]})


def _said(removed: Sequence[_Chunk]) -> list[Unverifiable]:
    if not removed:
        return []
    return [
        Unverifiable(
            f"rollups from {removed[0].since:%Y-%m-%d} to {removed[-1].until:%Y-%m-%d}",
            "retention may have removed single calls of these days",
        )
    ]
