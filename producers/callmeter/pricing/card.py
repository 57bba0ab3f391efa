"""A price card: the prices that hold for one model, time and context, compiled for speed.

All prices of a card are brought to one denominator, so a cost is a sum of integer products and one
half-even division; where every price is a whole number of pico-USD, as nearly always, there is no
division. For each kind of usage that sum is written as one Python expression and compiled: a third
of the time of loops over vectors.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from math import lcm
from operator import mul
from typing import cast

from callmeter.pricing.book import Rate
from callmeter.pricing.shape import Shape, shape_of
from callmeter.pricing.units import REQUEST, UNITS, direction

Usage = Mapping[str, int]
#: Pico-USD of the counts of one kind of usage, in its order; None if they contradict each other.
CostOf = Callable[..., int | None]

#: Kinds of usage remembered per card; unit names come from users, so there is a ceiling.
MAX_SHAPES = 32


def divide_half_even(numerator: int, denominator: int) -> int:
    """The quotient, rounded once, to the nearest integer and to the even one from the middle.

    >>> divide_half_even(5, 2), divide_half_even(7, 2), divide_half_even(8, 3)
    (2, 4, 3)
    """
    quotient, rest = divmod(numerator, denominator)
    return quotient + (2 * rest > denominator or (2 * rest == denominator and quotient & 1 == 1))


class Card:
    """Costs by ``rates``; ``minimum`` is the least billed count of a unit that is used at all."""

    def __init__(self, rates: Mapping[str, Rate], minimum: Mapping[str, int]) -> None:
        prices = [rate.price for rate in rates.values()]
        prices += [tier.price for rate in rates.values() for tier in rate.tiers]
        self._scale = lcm(*(price.denominator for price in prices))
        #: Input counts above which another tier begins; tier n costs ``self._tiers[n]``.
        self._thresholds = sorted({tier.above for rate in rates.values() for tier in rate.tiers})
        self._tiers = [
            {unit: self._scaled(rate, threshold) for unit, rate in rates.items()}
            for threshold in (-1, *self._thresholds)
        ]
        #: Wholes first: genai-prices takes the whole's count where both are given.
        self._minimum = dict(sorted(minimum.items(), key=lambda each: len(UNITS.get(each[0], ()))))
        self._shapes: dict[tuple[str, ...], CostOf] = {}

    def cost(self, usage: Usage) -> int | None:
        """Pico-USD, rounded half-even once; ``None`` if the card cannot price this usage."""
        return self.cost_of(tuple(usage))(*usage.values())

    def cost_of(self, units: tuple[str, ...]) -> CostOf:
        """The costs of usages with these units, in this order."""
        return self._shapes.get(units) or self._learn(units)

    def parts(self, usage: Usage) -> tuple[int, int, int] | None:
        """Pico-USD of input, output and all else; they add up to :meth:`cost` exactly.

        Output and the rest are rounded, input is what remains.
        """
        total = self.cost(usage)
        if total is None:
            return None
        usage = self._billable(usage)
        shape = self._shape(tuple(usage))
        counts = tuple(usage.values())
        prices = self._tiers[self._tier(shape, counts)]
        sums: dict[str | None, int] = {"input": 0, "output": 0, None: 0}
        for unit, combination in shape.billed.items():
            sums[direction(unit)] += prices[unit] * sum(map(mul, combination, counts))
        sums[None] += prices.get(REQUEST, 0) * usage.get(REQUEST, 1)
        output = divide_half_even(sums["output"], self._scale)
        other = divide_half_even(sums[None], self._scale)
        return total - output - other, output, other

    def _scaled(self, rate: Rate, threshold: int) -> int:
        price = rate.price
        for tier in rate.tiers:
            if tier.above <= threshold:
                price = tier.price
        return int(price * self._scale)

    def _shape(self, units: tuple[str, ...]) -> Shape:
        return shape_of(units, self._tiers[0], bool(self._thresholds))

    def _tier(self, shape: Shape, counts: tuple[int, ...]) -> int:
        total_input = 0 if shape.input_at is None else counts[shape.input_at]
        return bisect_left(self._thresholds, total_input)

    def _billable(self, usage: Usage) -> Usage:
        """The usage with minimum counts applied, to all units of the minimum if to one."""
        reported = next((usage[unit] for unit in self._minimum if usage.get(unit)), 0)
        if reported <= 0:
            return usage
        return {**usage, **{unit: max(reported, low) for unit, low in self._minimum.items()}}

    def _learn(self, units: tuple[str, ...]) -> CostOf:
        if any(unit in self._minimum for unit in units):
            cost_of = self._with_minimum(units)
        else:
            cost_of = self._compile(units)
        if len(self._shapes) >= MAX_SHAPES:
            self._shapes.clear()
        self._shapes[units] = cost_of
        return cost_of

    def _with_minimum(self, units: tuple[str, ...]) -> CostOf:
        #: With a minimum the units are others, always the same ones: two entries at most.
        compiled: dict[tuple[str, ...], CostOf] = {}

        def cost_of(*counts: int) -> int | None:
            billable = self._billable(dict(zip(units, counts, strict=True)))
            key = tuple(billable)
            found = compiled.get(key)
            if found is None:
                found = compiled[key] = self._compile(key)
            return found(*billable.values())

        return cost_of

    def _compile(self, units: tuple[str, ...]) -> CostOf:
        shape = self._shape(units)
        # per tier: coefficients of the counts, and what every call costs
        linear = [
            (
                tuple(
                    sum(prices[unit] * billed[at] for unit, billed in shape.billed.items())
                    + (prices.get(REQUEST, 0) if name == REQUEST else 0)
                    for at, name in enumerate(units)
                ),
                0 if shape.counts_requests else prices.get(REQUEST, 0),
            )
            for prices in self._tiers
        ]
        if shape.input_at is None:  # all input counts as 0, whatever tiers there are
            linear = [linear[bisect_left(self._thresholds, 0)]]
        return _written(shape, len(units), linear, self._thresholds, self._scale)


def _written(
    shape: Shape,
    units: int,
    linear: Sequence[tuple[Sequence[int], int]],
    thresholds: Sequence[int],
    scale: int,
) -> CostOf:
    """The cost as a function of so many counts, compiled from an expression.

    The expression is made of positions and of integers from the book alone: no name that a user
    gave a unit is in it.

    >>> # of input, output and cached input, at 3, 9 and 1 pico-USD:
    >>> # lambda c0,c1,c2: c0*3+c1*9+c2*-2 if c0>=0 and c1>=0 and c2>=0 and c0>=c2 else None
    """
    costs = [_sum_of(*each) for each in linear]
    cost = costs[0]
    for above, dearer in zip(thresholds, costs[1:], strict=False):
        # the highest threshold is asked first
        cost = f"({dearer} if c{shape.input_at}>{above} else {cost})"
    if scale != 1:
        cost = f"divide({cost},{scale})"
    fits = [f"c{at}>=0" for at in range(units)]
    fits += [f"c{whole}>=c{part}" for whole, part in shape.at_least]
    fits += [f"not c{at}" for at in shape.zeros]
    fits += [f"not (c{a} and c{b})" for a, b in shape.exclusive]
    fits += [f"{_sum_of(check, 0)}>=0" for check in shape.checks]
    counts = ",".join(f"c{at}" for at in range(units))
    source = f"lambda {counts}: {cost} if {' and '.join(fits) or True} else None"
    return _compiled(source)


@lru_cache(maxsize=1024)
def _compiled(source: str) -> CostOf:
    """Units that nobody prices make the same expression whatever their names are."""
    return cast("CostOf", eval(source, {"divide": divide_half_even}))  # noqa: S307


def _sum_of(coefficients: Sequence[int], base: int) -> str:
    terms = [f"c{at}*{each}" for at, each in enumerate(coefficients) if each]
    return "+".join(terms + [str(base)] * (base != 0 or not terms))
