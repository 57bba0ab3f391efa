"""How a usage falls apart into what is billed, given which units have a price.

A priced unit is billed for what is left of it when its priced parts are taken out: with prices for
``input`` and ``cache_read``, 1000 input tokens of which 300 were cached are 700 of ``input`` and
300 of ``cache_read``. So the cost is linear in the usage, and the coefficients depend only on which
units the usage names: its shape. A usage that contradicts itself has no cost: parts that exceed
their whole, a part without its whole, two overlapping units without their common part, a unit
nobody priced.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

from callmeter.pricing.units import INPUT, REQUEST, UNITS, contains, overlap


class Shape(NamedTuple):
    """The decomposition for one order of units; all vectors run over the counts in that order."""

    #: per priced unit, what is billed of it as a combination of counts
    billed: dict[str, tuple[int, ...]]
    #: (whole, part): positions where the first count must not be below the second
    at_least: tuple[tuple[int, int], ...]
    #: combinations that must not be negative, where a whole has several parts
    checks: tuple[tuple[int, ...], ...]
    #: positions whose count must be 0
    zeros: tuple[int, ...]
    #: pairs of positions that must not both be above 0
    exclusive: tuple[tuple[int, int], ...]
    #: position of the total input, which tiers go by
    input_at: int | None
    #: whether the usage counts requests; else there is one
    counts_requests: bool


def shape_of(units: Sequence[str], priced: Collection[str], tiered: bool) -> Shape:
    """The shape of a usage with these units, in this order, against these priced units."""
    priced = set(priced) - {REQUEST}
    zeros: set[int] = set()
    exclusive: set[tuple[int, int]] = set()
    for at, unit in enumerate(units):
        if unit != REQUEST and not any(contains(outer, unit) for outer in priced):
            zeros.add(at)
    for whole in priced | ({INPUT} if tiered else set()):
        if whole not in units:
            zeros |= {at for at, unit in enumerate(units) if contains(whole, unit)}
            exclusive |= _pairs_meeting_in(whole, units)
    billed: dict[str, tuple[int, ...]] = {}
    # most specific first, so that a part is done before its whole
    for whole in sorted(priced, key=lambda unit: (-len(UNITS.get(unit, ())), unit)):
        combination = [int(unit == whole) for unit in units]
        for part, taken in billed.items():
            if contains(whole, part):
                combination = [a - b for a, b in zip(combination, taken, strict=True)]
        billed[whole] = tuple(combination)
    contradictable = sorted({each for each in billed.values() if min(each, default=0) < 0})
    simple = [each for each in contradictable if sorted(filter(None, each)) == [-1, 1]]
    return Shape(
        billed=billed,
        at_least=tuple((each.index(1), each.index(-1)) for each in simple),
        checks=tuple(each for each in contradictable if each not in simple),
        zeros=tuple(sorted(zeros)),
        exclusive=tuple(sorted(exclusive)),
        input_at=units.index(INPUT) if tiered and INPUT in units else None,
        counts_requests=REQUEST in units,
    )


def _pairs_meeting_in(whole: str, units: Sequence[str]) -> set[tuple[int, int]]:
    return {
        (i, j)
        for i, a in enumerate(units)
        for j, b in enumerate(units[:i])
        if not contains(a, b) and not contains(b, a) and overlap(a, b) == whole
    }
