"""Spend and usage by any dimensions: what ``callmeter report`` prints.

From rollups where they know the dimensions, a plain sum with GROUP BY; from the raw tables for what
only single calls carry (user, session, tags, …). Calls are the model operations alone; money that
came apart from its call adds to the cost of its own dimensions.
"""

# ruff: noqa: S608 - only text of this package is put together; every value is bound

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from callmeter.errors import UsageError
from callmeter.schema.histogram import midpoint_us
from callmeter_sinks.clickhouse.store import Store
from callmeter_sinks.queries.dimensions import Binding, Dimension
from callmeter_sinks.queries.projected import knows_users, users_sql
from callmeter_sinks.queries.sources import IS_CALL, SUMS, Question

QUANTILES = (0.5, 0.95, 0.99)


@dataclass(frozen=True, slots=True)
class Figures:
    """Measures of a group of calls. None is unknown, never 0.

    ``calls`` are model operations, ``attempts`` their tries, ``failures`` calls whose status is not
    ok. Tokens and cost sum what is known; ``usage_unknown`` and ``unpriced_calls`` count the calls
    that are not in those sums. Latencies are read from histograms: off by at most 1.083 %.
    """

    calls: int
    attempts: int
    failures: int
    input_tokens: int | None
    output_tokens: int | None
    cost_usd: Decimal | None
    unpriced_calls: int
    usage_unknown: int
    latency_p50_ms: float | None
    latency_p95_ms: float | None
    latency_p99_ms: float | None


MEASURES = tuple(each.name for each in fields(Figures))


@dataclass(frozen=True, slots=True)
class ReportRow:
    """A group: the values of its dimensions (windows as aware datetimes) and its figures."""

    key: Mapping[str, str | datetime]
    figures: Figures


@dataclass(frozen=True, slots=True)
class Report:
    """``rows`` in the order asked for, ``totals`` over all groups, those past ``top`` included.

    ``since`` and ``until`` are the period in fact covered: rollups know whole minutes.
    """

    by: Sequence[str]
    rows: Sequence[ReportRow]
    totals: Figures
    since: datetime | None
    until: datetime | None


@dataclass(frozen=True, slots=True)
class UsageRow:
    """How much of one unit (``input``, ``cache_read``, ``image``, …) a group used."""

    key: Mapping[str, str | datetime]
    unit: str
    amount: int


@dataclass(frozen=True, slots=True)
class OperationRow:
    """Programs, nodes and tools, counted apart from calls."""

    key: Mapping[str, str | datetime]
    operations: int
    failures: int


def report(
    store: Store, asked: Question, *, top: int | None, order: str | None, latencies: bool = True
) -> Report:
    """Figures by dimensions. See ``Queries.report``."""
    if top is not None and top < 1:
        raise UsageError("top is a number of rows, at least 1")
    binding = Binding()
    sums = _sums_with_totals(asked, binding, latencies=latencies)
    if latencies:
        keys = ", ".join(("whole", *_names(asked.dims)))
        found = _latencies_with_totals(asked, binding)
        statement = f"SELECT * FROM ({sums}) AS s LEFT JOIN ({found}) AS l USING ({keys})"
    else:
        statement = f"SELECT *, [] AS q, 0 AS n FROM ({sums})"
    statement += f" ORDER BY whole DESC, {order_sql(order, asked.dims)}"
    if top is not None:
        statement += f" LIMIT {binding.add(top + 1, 'UInt32')}"
    rows = []
    totals = figures([0] * len(SUMS), None)
    for whole, *values, quantiles, number in store.query(
        statement, binding.values, asked.settings(store)
    ).rows:
        key, measures = tuple(values[: len(asked.dims)]), values[len(asked.dims) :]
        measured = figures(measures, _micros(asked, quantiles) if number else None)
        if whole:
            totals = measured
        if not whole or not asked.dims:
            rows.append(ReportRow(values_of(asked.dims, key), measured))
    by = [dim.name for dim in asked.dims]
    return Report(by, rows, totals, asked.period.since, asked.period.until)


def latencies(store: Store, asked: Question) -> dict[tuple[Any, ...] | None, Sequence[float]]:
    """p50, p95 and p99 in microseconds by the values of the dimensions, and of all under None.

    Of groups without a measured duration there are none.
    """
    binding = Binding()
    statement = _latencies_with_totals(asked, binding)
    return {
        None if whole else tuple(key): _micros(asked, quantiles)
        for whole, *key, quantiles, number in store.query(
            statement, binding.values, asked.settings(store)
        ).rows
        if number
    }


def _sums_with_totals(asked: Question, binding: Binding, *, latencies: bool) -> str:
    """Sums of groups and of all."""
    sums = ", ".join(f"sum(s_{name}) AS {name}_" for name in SUMS)
    # Rows are aggregated once, into groups, and only the groups twice.
    return _with_totals(asked.dims, sums, sums_sql(asked, binding, latencies=latencies))


def sums_sql(
    asked: Question, binding: Binding, names: Sequence[str] = SUMS, *, latencies: bool
) -> str:
    """Groups ``k0``, ``k1``, … and sums ``s_calls`` and so on, several rows a group: join them.

    Of users they are read from sums by day, unless latencies are asked for too.
    """
    if asked.raw and not latencies and knows_users(asked.dims, asked.filters):
        return users_sql(asked.dims, asked.period, asked.filters, binding, names)
    return groups_sql(asked, binding, names)


def _latencies_with_totals(asked: Question, binding: Binding) -> str:
    """Quantiles of groups and of all: the states of groups are merged for all.

    By windows there are many groups with few histograms each, whose states cost more than adding up
    the histograms once more (docs/decisions/0022).
    """
    source = asked.durations_sql(binding)
    many = any(dim.kind == "window" for dim in asked.dims)
    if not asked.raw and (many or not asked.dims):
        rows = f"SELECT {_keys(asked.dims, binding)}latency FROM ({source})"
        return _with_totals(asked.dims, _quantiles_sql(asked), rows)
    levels, function, arguments, number = _quantiles(asked)
    states = f"{function}State({levels})({arguments}) AS state, {number} AS number"
    groups = _select(asked.dims, states, source, binding)
    return _with_totals(
        asked.dims, f"{function}Merge({levels})(state) AS q, sum(number) AS n", groups
    )


def groups_sql(asked: Question, binding: Binding, names: Sequence[str] = SUMS) -> str:
    """The groups ``k0``, ``k1``, … and their sums: ``s_calls``, ``s_attempts`` and so on."""
    sums = ", ".join(f"{asked.added(name)} AS s_{name}" for name in names)
    return _select(asked.dims, sums, asked.sums_sql(binding), binding)


def latencies_sql(asked: Question, binding: Binding) -> str:
    """The groups with ``q``, buckets of quantiles (microseconds if raw), and a number of values."""
    return _select(asked.dims, _quantiles_sql(asked), asked.durations_sql(binding), binding)


def _quantiles_sql(asked: Question) -> str:
    """``q``, quantiles of rows, and how many values they are of."""
    levels, function, arguments, number = _quantiles(asked)
    return f"{function}({levels})({arguments}) AS q, {number} AS n"


def _quantiles(asked: Question) -> tuple[str, str, str, str]:
    """Levels, function, arguments, and how values are counted."""
    levels = ", ".join(map(str, QUANTILES))
    if asked.raw:
        return levels, "quantilesExactWeighted", "latency_us, 1", "count()"
    arguments = "mapKeys(latency), mapValues(latency)"
    return levels, "quantilesExactWeightedArray", arguments, "sum(length(latency))"


def usage(store: Store, asked: Question) -> list[UsageRow]:
    """Amounts by unit. See ``Queries.usage``."""
    binding = Binding()
    amounts = f"{asked.added('usage')} AS amounts"
    statement = _select(asked.dims, amounts, asked.sums_sql(binding), binding) + " ORDER BY ALL"
    return [
        UsageRow(values_of(asked.dims, row[:-1]), unit, int(amount))
        for row in store.query(statement, binding.values, asked.settings(store)).rows
        for unit, amount in sorted(row[-1].items())
        if amount
    ]


def operations(store: Store, asked: Question) -> list[OperationRow]:
    """Counts of what is no call. See ``Queries.operations``."""
    if asked.raw:
        raise UsageError("operations are counted by the dimensions of rollups and windows")
    binding = Binding()
    measures = "r.calls AS operations, r.failures AS failures"
    source = asked.rollups_sql("rollup", measures, f"NOT {IS_CALL} AND r.calls > 0", binding)
    statement = _select(asked.dims, "sum(operations) AS n, sum(failures) AS f", source, binding)
    return [
        OperationRow(values_of(asked.dims, row[:-2]), row[-2], row[-1])
        for row in store.query(f"{statement} ORDER BY n DESC", binding.values).rows
        if row[-2]
    ]


def _select(dims: Sequence[Dimension], measures: str, source: str, binding: Binding) -> str:
    """SELECT of keys k0, k1, … and measures, grouped by the keys."""
    group_by = f" GROUP BY {', '.join(_names(dims))}" if dims else ""
    return f"SELECT {_keys(dims, binding)}{measures} FROM ({source}){group_by}"


def _keys(dims: Sequence[Dimension], binding: Binding) -> str:
    """The dimensions as k0, k1, …: the beginning of a SELECT."""
    named = zip(dims, _names(dims), strict=True)
    return "".join(f"{dim.sql(binding)} AS {name}, " for dim, name in named)


def _with_totals(dims: Sequence[Dimension], joined: str, groups: str) -> str:
    """By the keys that ``groups`` has, and all together; ``whole`` is 1 for the latter."""
    names = _names(dims)
    if not names:
        return f"SELECT 1 AS whole, {joined} FROM ({groups})"
    keys = ", ".join(names)
    return (
        f"SELECT grouping({names[0]}) AS whole, {keys}, {joined} FROM ({groups}) "
        f"GROUP BY GROUPING SETS (({keys}), ())"
    )


def _names(dims: Sequence[Dimension]) -> list[str]:
    return [f"k{place}" for place in range(len(dims))]


def order_sql(order: str | None, dims: Sequence[Dimension]) -> str:
    """By windows ascending if there are any, else by cost and calls descending, unless told."""
    ties = "".join(f", k{place}" for place in range(len(dims)))
    if order is None:
        windows = [f"k{place}" for place, dim in enumerate(dims) if dim.kind == "window"]
        return f"{', '.join((*windows, 'cost_ DESC', 'calls_ DESC'))}{ties}"
    name, descending = (order[1:], True) if order.startswith("-") else (order, False)
    columns = {dim.name: f"k{place}" for place, dim in enumerate(dims)}
    columns |= {"cost_usd": "cost_", "unpriced_calls": "unpriced_"}
    columns |= {n: f"{n}_" for n in MEASURES if n in SUMS}
    if name not in columns:
        raise UsageError(f"cannot order by {name[:60]!r}: there are {', '.join(columns)}")
    return f"{columns[name]}{' DESC' if descending else ''}{ties}"


def values_of(dims: Sequence[Dimension], values: Sequence[Any]) -> dict[str, str | datetime]:
    """A group's key by the names of its dimensions; windows are aware datetimes in UTC."""
    return {
        dim.name: value.astimezone(UTC) if isinstance(value, datetime) else str(value)
        for dim, value in zip(dims, values, strict=True)
    }


def _micros(asked: Question, quantiles: Sequence[Any]) -> list[float]:
    return [float(each) if asked.raw else midpoint_us(each) for each in quantiles]


def known_cost(cost: Decimal, calls: int, without: int) -> Decimal | None:
    """A sum of costs; None if it is 0 because each of the calls is ``without`` a known one."""
    return None if calls > 0 and without >= calls and cost == 0 else cost


def figures(measures: Sequence[Any], latencies: Sequence[float] | None) -> Figures:
    """From sums in the order of ``SUMS``, and quantiles in microseconds."""
    calls, attempts, failures, tokens_in, tokens_out, cost, unpriced, unknown = measures
    cost = Decimal(cost)
    no_usage = calls > 0 and unknown >= calls
    p50, p95, p99 = [us / 1000 for us in latencies] if latencies else (None, None, None)
    return Figures(
        calls=calls,
        attempts=attempts,
        failures=failures,
        input_tokens=None if no_usage else tokens_in,
        output_tokens=None if no_usage else tokens_out,
        cost_usd=known_cost(cost, calls, unpriced + unknown),
        unpriced_calls=unpriced,
        usage_unknown=unknown,
        latency_p50_ms=p50,
        latency_p95_ms=p95,
        latency_p99_ms=p99,
    )
