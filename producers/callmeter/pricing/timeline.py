"""What holds when: the entries found for a model, cut into stretches of time with one card each."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from callmeter.pricing.book import DAY_US, Entry, Period, Rate, Tier, Validity
from callmeter.pricing.card import Card
from callmeter.pricing.catalog import Found

_BEFORE_ALL = -(2**63)
_AFTER_ALL = 2**63


class Context(NamedTuple):
    """What besides model and time decides a price. ``tier`` is in lower case, "" if not known."""

    tier: str
    batch: bool

    def values(self) -> dict[str, str]:
        """As genai-prices names it, so that its variants can be matched."""
        values = {"processing": "batch"} if self.batch else {}
        if self.tier:
            values["service_tier"] = self.tier
        if self.tier == "fast":
            values["speed"] = "fast"  # Anthropic's name for the same wish
        return values

    def as_known_to(self, entries: Iterable[Entry]) -> Context:
        """Without a tier that makes no difference to these entries."""
        known = {
            name
            for entry in entries
            for values in (
                *(variant.when.values() for variant in entry.variants),
                *(period.factors for period in entry.periods),
            )
            for name in values
        }
        return self if self.tier in known else Context("", self.batch)


class Segment(NamedTuple):
    """From ``start_us`` to before ``end_us``, ``card`` holds; ``None`` if nothing is known."""

    start_us: int
    end_us: int
    card: Card | None
    source: str


class Timeline:
    """The segments of one model in one context, made when first asked for. Their number is bounded
    by the dates and times of day in the entries.
    """

    def __init__(self, found: Sequence[Found], context: Context) -> None:
        self._found = found
        self._context = context
        validities = [valid for each in found for valid in _validities(each.entry)]
        self._dates = sorted(
            {us for valid in validities for us in (valid.from_us, valid.until_us) if us is not None}
        )
        self._times = sorted({us for valid in validities for us in valid.daily or ()})
        self._cards: dict[tuple[int, int], tuple[Card | None, str]] = {}
        #: The segment asked for last. Replaced as a whole, so threads never see half of one.
        self.current = Segment(0, 0, None, "")

    def at(self, at_us: int) -> Segment:
        """The segment of a time; it becomes ``current``."""
        date = bisect_right(self._dates, at_us)
        start = self._dates[date - 1] if date else _BEFORE_ALL
        end = self._dates[date] if date < len(self._dates) else _AFTER_ALL
        time = 0
        if self._times:
            midnight = at_us - at_us % DAY_US
            time = bisect_right(self._times, at_us - midnight)
            start = max(start, midnight + (self._times[time - 1] if time else 0))
            end = min(end, midnight + (self._times[time] if time < len(self._times) else DAY_US))
        known = self._cards.get((date, time))
        if known is None:
            known = self._cards[date, time] = self._card(at_us)
        self.current = segment = Segment(start, end, *known)
        return segment

    def _card(self, at_us: int) -> tuple[Card | None, str]:
        for entry, variants in self._found:
            for period in reversed(entry.periods):
                if period.valid.holds(at_us):
                    rates = dict(period.rates)
                    if variants:
                        rates.update(self._replaced(entry, at_us))
                    return Card(self._factored(period, rates), entry.minimum), entry.source
        return None, ""

    def _replaced(self, entry: Entry, at_us: int) -> dict[str, Rate]:
        context = self._context.values()
        rates: dict[str, Rate] = {}
        for variant in entry.variants:
            if variant.valid.holds(at_us) and variant.when.items() <= context.items():
                rates = {**variant.rates, **rates}  # the first variant decides
        return rates

    def _factored(self, period: Period, rates: Mapping[str, Rate]) -> Mapping[str, Rate]:
        factor = period.factors.get(self._context.tier, 1)
        if self._context.batch:
            factor *= period.factors.get("batch", 1)
        if factor == 1:
            return rates
        return {
            unit: Rate(
                rate.price * factor,
                tuple(Tier(tier.above, tier.price * factor) for tier in rate.tiers),
            )
            for unit, rate in rates.items()
        }


def _validities(entry: Entry) -> list[Validity]:
    periods = [each.valid for each in entry.periods]
    return periods + [each.valid for each in entry.variants]
