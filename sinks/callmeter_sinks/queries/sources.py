"""Where figures are read from: rollups cut to the period, or the raw tables, as one SQL shape."""

# ruff: noqa: S608 - only text of this package is put together; every value is bound

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from callmeter_sinks.clickhouse.retention import SURELY_KEPT, minutes_kept
from callmeter_sinks.clickhouse.store import Store
from callmeter_sinks.queries.dimensions import (
    MODEL_OPERATIONS_SQL,
    RAW_DIMENSIONS,
    ROLLUP_DIMENSIONS,
    Binding,
    Dimension,
    Filters,
    Period,
    Segment,
    dimension,
    dimensions,
    epoch_us,
    filter_sql,
    segments,
    with_project,
)

#: Columns of the sums, in the order of the figures made from them.
SUMS = (
    "calls",
    "attempts",
    "failures",
    "input_tokens",
    "output_tokens",
    "cost",
    "unpriced",
    "usage_unknown",
)
LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)
IS_CALL = f"operation IN {MODEL_OPERATIONS_SQL}"

#: For rollups: their blocks stay in memory decompressed, up to ``CACHE_BYTES`` of the store.
_CACHED: Mapping[str, Any] = {"use_uncompressed_cache": 1}
#: The same, read nearly whole, part by part.
_WHOLE_PARTS: Mapping[str, Any] = {
    **_CACHED,
    "optimize_move_to_prewhere": 0,
    "max_threads_for_indexes": 1,
}

#: Dimensions of ``hist_models_1h``, and the hour from which it is whole.
_BY_MODEL = frozenset({"provider", "model", "operation"})
_MODELS_BEGIN = "(SELECT max(start) FROM rollup_begins WHERE name = 'hist_models_1h')"

#: Columns that calls and costs share, and those that calls alone have.
_SHARED = (*ROLLUP_DIMENSIONS, "user", "session", "program", "cost_source", "price_version")
_CALLS_ONLY = tuple(name for name in RAW_DIMENSIONS if name not in _SHARED)


@dataclass(frozen=True, slots=True)
class Question:
    """Which groups, of what, in which period."""

    dims: Sequence[Dimension]
    period: Period
    filters: Filters
    #: Since when every minute is kept; None if nobody has looked.
    minutes_from: datetime | None = None

    @classmethod
    def of(
        cls,
        store: Store,
        by: Iterable[str] = (),
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        project: str | None = None,
        filters: Filters | None = None,
    ) -> Question:
        """From what a user typed; ``UsageError`` says what is wrong with it.

        The period is widened to whole minutes if rollups will answer.
        """
        period = Period.of(since, until)
        asked = cls(dimensions(by), period, with_project(filters, project))
        if asked.raw:
            return asked
        asked = replace(asked, period=period.in_minutes())
        # Whether minutes are kept is looked up only where it would change what is read.
        if asked.parts() == replace(asked, minutes_from=LONG_AGO).parts():
            return asked
        return replace(asked, minutes_from=minutes_from(store))

    def parts(self) -> list[Segment]:
        """The period, cut by the rollups that it is read from."""
        windows = [dim.name for dim in self.dims if dim.kind == "window"]
        return segments(self.period, windows, minutes_from=self.minutes_from)

    @property
    def raw(self) -> bool:
        """Whether single calls must be read, because rollups lack a dimension."""
        named = [dimension(name) for name in self.filters]
        return any(dim.needs_calls for dim in (*self.dims, *named))

    def sums_sql(self, binding: Binding) -> str:
        """Rows with the dimensions asked for, ``start``, ``usage`` and the columns of ``SUMS``.

        ``added`` adds them up: of rollups they are also those of rows that are no calls.
        """
        if self.raw:
            return f"{self._calls(binding)} UNION ALL {self._costs(binding)}"
        # Rows of programs, nodes and tools hold no figure of a report, but for money put on them.
        sums = ", ".join(f"r.{name} AS {name}" for name in SUMS)
        measures = f"{sums}, {IS_CALL} AS is_call, r.usage AS usage"
        return self.rollups_sql("rollup", measures, f"({IS_CALL} OR r.cost != 0)", binding)

    def added(self, name: str) -> str:
        """The sum of a column of ``sums_sql``, as an aggregate; ``usage`` is a map of sums."""
        function = "sumMap" if name == "usage" else "sum"
        # A condition of the aggregate is one column a block, and not one for each figure.
        if self.raw or name == "cost":
            return f"{function}({name})"
        return f"{function}If({name}, is_call)"

    def durations_sql(self, binding: Binding) -> str:
        """Rows with the dimensions, ``start`` and ``latency``: a histogram, or one value if raw."""
        if self.raw:
            return f"SELECT * FROM ({self._calls(binding)}) WHERE latency_us IS NOT NULL"
        return self.rollups_sql("hist", "r.latency AS latency", IS_CALL, binding)

    def rollups_sql(self, table: str, measures: str, condition: str, binding: Binding) -> str:
        """UNION ALL of the parts of the period, each from the coarsest rollup that fits."""
        used = {dim.name for dim in self.dims} | set(self.filters) | {"operation"}
        columns = ", ".join(f"r.{name} AS {name}" for name in ROLLUP_DIMENSIONS if name in used)
        windows = [dim.name for dim in self.dims if dim.kind == "window"]
        tables: dict[str, list[str]] = {}
        for part in self.parts():
            within = []
            for moment, comparison in ((part.since, ">="), (part.until, "<")):
                if moment is not None:
                    seconds = binding.add(epoch_us(moment) // 1_000_000, "UInt32")
                    within.append(f"r.start {comparison} toDateTime({seconds}, 'UTC')")
            tables.setdefault(f"{table}_{part.suffix}", []).append(" AND ".join(within) or "1")
        if _BY_MODEL.issuperset(used - set(windows)) and "hist_1h" in tables:
            whole = " OR ".join(f"({each})" for each in tables.pop("hist_1h"))
            tables["hist_1h"] = [f"({whole}) AND r.start < {_MODELS_BEGIN}"]
            tables["hist_models_1h"] = [f"({whole}) AND r.start >= {_MODELS_BEGIN}"]
        where = " AND ".join((condition, *filter_sql(self.filters, binding)))
        # Both edges of a period are in one SELECT: every part of a table is looked at once.
        return " UNION ALL ".join(
            f"SELECT r.start AS start, {columns}, {measures} FROM {name} AS r "
            f"WHERE {where} AND ({' OR '.join(f'({each})' for each in within)})"
            for name, within in tables.items()
        )

    def settings(self, store: Store) -> Mapping[str, Any] | None:
        """Settings to ask with, of an engine in this process; a server may not let readers set any.

        Parts never change, so blocks that a question of rollups has decompressed are kept for the
        next. Not those of single calls: there are too many, and they would push the others out.
        Without filters nearly every row that the key leaves is wanted, and PREWHERE would read each
        part in two steps for nothing. The indexes of some hundred small parts are looked through
        sooner than a thread has been found for each (docs/decisions/0022).
        """
        if self.raw or not store.embedded:
            return None
        return _WHOLE_PARTS if self.filters.keys() <= {"project"} else _CACHED

    def _calls(self, binding: Binding) -> str:
        where = [
            IS_CALL,
            *self.period.sql("started_at", binding),
            *filter_sql(self.filters, binding),
        ]
        return (
            f"SELECT {', '.join((*_SHARED, *_CALLS_ONLY))}, tags, attributes, "
            "toDateTime(started_at, 'UTC') AS start, latency_us, toUInt64(1) AS calls, "
            "toUInt64(attempts) AS attempts, toUInt64(status != 'ok') AS failures, "
            "ifNull(input_tokens, 0) AS input_tokens, ifNull(output_tokens, 0) AS output_tokens, "
            "ifNull(cost, 0) AS cost, toUInt64(unpriced) AS unpriced, "
            "toUInt64(usage_unknown) AS usage_unknown, "
            f"CAST(usage, 'Map(String, UInt64)') AS usage FROM calls WHERE {' AND '.join(where)}"
        )

    def _costs(self, binding: Binding) -> str:
        where = [*self.period.sql("started_at", binding), *filter_sql(self.filters, binding)]
        absent = ", ".join(f"'' AS {name}" for name in _CALLS_ONLY)
        nothing = ", ".join("cost" if name == "cost" else f"toUInt64(0) AS {name}" for name in SUMS)
        return (
            f"SELECT {', '.join(_SHARED)}, {absent}, tags, "
            "CAST(map(), 'Map(LowCardinality(String), String)') AS attributes, "
            f"toDateTime(started_at, 'UTC') AS start, NULL AS latency_us, {nothing}, "
            "CAST(map(), 'Map(String, UInt64)') AS usage "
            f"FROM costs WHERE {' AND '.join(where) or '1'}"
        )


def minutes_from(store: Store) -> datetime:
    """Since when every minute is kept: retention counts from the arrival of what happened in it."""
    kept = minutes_kept(store)
    return LONG_AGO if kept is None else datetime.now(UTC) - kept + SURELY_KEPT
