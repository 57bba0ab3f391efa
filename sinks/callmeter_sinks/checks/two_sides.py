"""The one statement behind every comparison: two sides of one shape, joined by key."""

# ruff: noqa: S608 - only text of this package is put together; every value is bound

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from callmeter_sinks.checks.outcome import Comparison
from callmeter_sinks.clickhouse.store import Store
from callmeter_sinks.queries.dimensions import Binding

#: Most differing keys that one run names.
MAX_KEYS = 1000


@dataclass(frozen=True, slots=True)
class Side:
    """SELECTs with the same columns: the keys, then the measures, already grouped by key or not."""

    selects: Sequence[str]


def compare(
    store: Store,
    keys: Sequence[str],
    measures: Mapping[str, str],
    sides: tuple[Side, Side],
    binding: Binding,
) -> Comparison:
    """Sum both sides, the raw one first, by key and compare every measure of every key.

    ``measures`` names each measure and how it is joined: ``sum``, ``sumMap``, ``min`` or ``max``. A
    map's total is the sum of its values, that of a least or greatest value the number of keys that
    have one. A key that only one side has differs wherever a measure of it is not zero.
    """
    columns = ", ".join((*keys, *measures))
    raw, rollups = sides
    union = " UNION ALL ".join(
        f"SELECT {columns}, {side} AS side FROM ({select})"
        for side, selects in ((0, raw.selects), (1, rollups.selects))
        for select in selects
    )
    joined = ", ".join(
        f"{_joined(how, name, 0)} AS a_{name}, {_joined(how, name, 1)} AS b_{name}"
        for name, how in measures.items()
    )
    grouped = f"SELECT {', '.join(keys)}, {joined} FROM ({union}) GROUP BY {', '.join(keys)}"
    outer = []
    for name, how in measures.items():
        a, b = (_scalar(how, f"{side}_{name}") for side in "ab")
        key = f"tuple({', '.join(f'toString({key})' for key in keys)})"
        different = f"a_{name} != b_{name}" if how in ("sum", "sumMap") else f"{a} != {b}"
        # A least or greatest value has no total; how many keys have one is a total.
        total = "countIf({} >= 0)" if how in ("min", "max") else "sum({})"
        outer += [
            f"{total.format(a)} AS ta_{name}",
            f"{total.format(b)} AS tb_{name}",
            f"groupArrayIf({MAX_KEYS})({key}, {different}) AS k_{name}",
        ]
    row = store.query(f"SELECT {', '.join(outer)} FROM ({grouped})", binding.values).rows[0]
    found = Comparison()
    for place, name in enumerate(measures):
        total_raw, total_rollups, differing = row[3 * place : 3 * place + 3]
        found.totals[name] = (total_raw, total_rollups)
        found.differing[name] = {tuple(key) for key in differing}
    return found


def _joined(how: str, name: str, side: int) -> str:
    if how == "sumMap":
        # A unit of amount 0 and an absent unit are the same amount.
        return f"mapFilter((k, v) -> v != 0, sumMapIf({name}, side = {side}))"
    return f"{how}If({name}, side = {side})"


def _scalar(how: str, name: str) -> str:
    if how == "sumMap":
        return f"arraySum(mapValues({name}))"
    if how in ("min", "max"):
        return f"ifNull({name}, -1)"
    return name
