"""Who costs most: cost, calls and failures of groups, and no figure besides.

Sums by user and day lie in the store as states of aggregates, and each column of them costs as much
to read as the users' names (docs/decisions/0022): so three are read where ``report`` reads eight.
"""

# ruff: noqa: S608 - only text of this package is put together; every value is bound

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from callmeter.errors import UsageError
from callmeter_sinks.clickhouse.store import Store
from callmeter_sinks.queries.dimensions import Binding
from callmeter_sinks.queries.sources import Question
from callmeter_sinks.queries.usage import known_cost, order_sql, sums_sql, values_of

_SHOWN = ("cost", "calls", "failures")
#: These say whether a cost of 0 is known to be 0.
_UNKNOWN = ("unpriced", "usage_unknown")


@dataclass(frozen=True, slots=True)
class Spent:
    """What a group cost, in US dollars; None is unknown, never 0. ``failures`` are of ``calls``."""

    cost_usd: Decimal | None
    calls: int
    failures: int


@dataclass(frozen=True, slots=True)
class Spender:
    """A group: the values of its dimensions and what it cost."""

    key: Mapping[str, str | datetime]
    figures: Spent


def spenders(store: Store, asked: Question, *, top: int) -> list[Spender]:
    """The costliest groups, as the rows of ``report`` in its order. See ``Queries.spenders``."""
    if top < 1:
        raise UsageError("top is a number of rows, at least 1")
    rows = _rows(store, asked, top, _SHOWN)
    if any(row[len(asked.dims)] == 0 for row in rows):
        rows = _rows(store, asked, top, (*_SHOWN, *_UNKNOWN))
    return [_spender(asked, row) for row in rows]


def _rows(
    store: Store, asked: Question, top: int, names: Sequence[str]
) -> Sequence[tuple[Any, ...]]:
    """Keys and sums of the costliest groups."""
    binding = Binding()
    keys = [f"k{place}" for place in range(len(asked.dims))]
    sums = [f"sum(s_{name}) AS {name}_" for name in names]
    group_by = f" GROUP BY {', '.join(keys)}" if keys else ""
    return store.query(
        f"SELECT {', '.join((*keys, *sums))} "
        f"FROM ({sums_sql(asked, binding, names, latencies=False)}){group_by} "
        f"ORDER BY {order_sql(None, asked.dims)} LIMIT {binding.add(top, 'UInt32')}",
        binding.values,
        asked.settings(store),
    ).rows


def _spender(asked: Question, row: Sequence[Any]) -> Spender:
    keys = len(asked.dims)
    cost, calls, failures, *unknown = row[keys:]
    known = known_cost(Decimal(cost), calls, sum(unknown))
    return Spender(values_of(asked.dims, row[:keys]), Spent(known, calls, failures))
