"""What the projections of ``calls`` and ``costs`` answer: users by day, failures by hour.

The engine reads a projection where a statement has just its groups, its sums and conditions on its
groups; so a period is cut into whole windows, and edges for which single rows are read. Expressions
here are those of migration 0005. If the engine does not know a projection, the answer is the same,
from single rows.
"""

# ruff: noqa: S608 - only text of this package is put together; every value is bound

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from callmeter_sinks.queries.dimensions import (
    MODEL_OPERATIONS_SQL,
    Binding,
    Dimension,
    Filters,
    Period,
    ceil,
    epoch_us,
    filter_sql,
    floor,
)

#: Dimensions of the projections named ``by_user``, of calls and of costs.
BY_USER = frozenset({"project", "service", "operation", "user"})
_IS_CALL = f"operation IN {MODEL_OPERATIONS_SQL}"
_WINDOWS = {
    "toStartOfDay": timedelta(days=1),
    "toStartOfHour": timedelta(hours=1),
}
_OF_CALLS = {
    "calls": "count()",
    "attempts": "sum(attempts)",
    "failures": "countIf(status != 'ok')",
    "input_tokens": "ifNull(sum(input_tokens), 0)",
    "output_tokens": "ifNull(sum(output_tokens), 0)",
    "cost": "ifNull(sum(cost), toDecimal128(0, 12))",
    "unpriced": "sum(unpriced)",
    "usage_unknown": "sum(usage_unknown)",
}
_OF_COSTS = {**dict.fromkeys(_OF_CALLS, "toUInt64(0)"), "cost": "sum(cost)"}


def knows_users(dims: Sequence[Dimension], filters: Filters) -> bool:
    """Whether the projections ``by_user`` have every dimension that is asked for."""
    return BY_USER.issuperset([*(dim.name for dim in dims), *filters])


def users_sql(
    dims: Sequence[Dimension],
    period: Period,
    filters: Filters,
    binding: Binding,
    sums: Sequence[str],
) -> str:
    """Groups ``k0``, ``k1``, … and sums ``s_calls``, …, several rows a group: join them."""
    names = [f"k{place}" for place in range(len(dims))]
    keys = "".join(f"{d.sql(binding)} AS {name}, " for d, name in zip(dims, names, strict=True))
    group_by = f" GROUP BY {', '.join(names)}" if names else ""
    wanted = filter_sql(filters, binding)
    selects = []
    for table, known, always in (("calls", _OF_CALLS, [_IS_CALL]), ("costs", _OF_COSTS, [])):
        added = ", ".join(f"{known[name]} AS s_{name}" for name in sums)
        for within in cut(period, "toStartOfDay", binding):
            where = " AND ".join([*always, *within, *wanted]) or "1"
            selects.append(f"SELECT {keys}{added} FROM {table} WHERE {where}{group_by}")
    return " UNION ALL ".join(selects)


def failures_sql(period: Period, filters: Filters, binding: Binding) -> str:
    """Groups of failed calls with ``n``, ``last``, ``said`` and ``call``; several rows a group."""
    groups = "provider, model, status, error_type, http_status"
    wanted = [_IS_CALL, "status != 'ok'", *filter_sql(filters, binding)]
    return " UNION ALL ".join(
        f"SELECT {groups}, count() AS n, maxIf(started_at, status != 'ok') AS last, "
        "argMaxIf(error_message, started_at, status != 'ok') AS said, "
        "argMaxIf(call_id, started_at, status != 'ok') AS call "
        f"FROM calls WHERE {' AND '.join([*within, *wanted])} GROUP BY {groups}"
        for within in cut(period, "toStartOfHour", binding)
    )


def cut(period: Period, function: str, binding: Binding) -> list[list[str]]:
    """Conditions of the whole windows in the middle, and of the edges before and behind them."""
    step = _WINDOWS[function]
    since, until = period.since, period.until
    first = None if since is None else ceil(since, step)
    last = None if until is None else floor(until, step)
    if first is not None and last is not None and first >= last:
        return [period.sql("started_at", binding)]
    middle = []
    for moment, comparison in ((first, ">="), (last, "<")):
        if moment is not None:
            seconds = binding.add(epoch_us(moment) // 1_000_000, "UInt32")
            middle.append(f"{function}(started_at) {comparison} toDateTime({seconds}, 'UTC')")
    parts = [middle]
    if since != first:
        parts.append(Period(since, first).sql("started_at", binding))
    if until != last:
        parts.append(Period(last, until).sql("started_at", binding))
    return parts
