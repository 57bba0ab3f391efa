"""A price card: the prices that hold for one model, time and context, compiled for speed.

All prices of a card are brought to one denominator, so a cost is a sum of integer products and one
half-even division; where every price is a whole number of pico-USD, as nearly always, there is no
division.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping
from math import lcm
from operator import mul

from callmeter.pricing.book import Rate
from callmeter.pricing.shape import Shape, shape_of
from callmeter.pricing.units import REQUEST, UNITS, direction

Usage = Mapping[str, int]
CostOf = Callable[[Usage], int | None]

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
        cost_of = self._shapes.get(tuple(usage))
        if cost_of is None:
            cost_of = self._learn(tuple(usage))
        return cost_of(usage)

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
            cost_of: CostOf = self._with_minimum
        else:
            cost_of = self._compile(units)
        if len(self._shapes) >= MAX_SHAPES:
            self._shapes.clear()
        self._shapes[units] = cost_of
        return cost_of

    def _with_minimum(self, usage: Usage) -> int | None:
        billable = self._billable(usage)
        return self._compile(tuple(billable))(billable)

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
        if len(linear) == 1 and self._scale == 1:
            return _flat(shape, *linear[0])
        scale, thresholds, input_at, fits = (
            self._scale,
            self._thresholds,
            shape.input_at,
            shape.fits,
        )

        def cost_of(usage: Usage) -> int | None:
            counts = tuple(usage.values())
            if not fits(counts):
                return None
            total_input = 0 if input_at is None else counts[input_at]
            coefficients, base = linear[bisect_left(thresholds, total_input)]
            total = sum(map(mul, coefficients, counts)) + base
            return total if scale == 1 else divide_half_even(total, scale)

        return cost_of


def _flat(shape: Shape, coefficients: tuple[int, ...], base: int) -> CostOf:
    """The cost without tiers and fractions of a pico-USD: nearly every call, so made for speed."""
    fits, at_least = shape.fits, shape.at_least
    if len(coefficients) == 2 and not (at_least or shape.checks or shape.zeros or shape.exclusive):
        first, second = coefficients

        def cost_of_two(usage: Usage) -> int | None:
            a, b = usage.values()
            return a * first + b * second + base if a >= 0 <= b else None

        return cost_of_two
    if not (shape.checks or shape.zeros or shape.exclusive):

        def cost_of_whole_and_parts(usage: Usage) -> int | None:
            counts = tuple(usage.values())
            for whole, part in at_least:
                if counts[whole] < counts[part]:
                    return None
            if counts and min(counts) < 0:
                return None
            total: int = sum(map(mul, coefficients, counts), base)
            return total

        return cost_of_whole_and_parts

    def cost_of(usage: Usage) -> int | None:
        counts = tuple(usage.values())
        if not fits(counts):
            return None
        total: int = sum(map(mul, coefficients, counts), base)
        return total

    return cost_of
