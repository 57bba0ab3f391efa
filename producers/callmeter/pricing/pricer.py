"""Pricing calls by a book: the hot path of the meter, and of the guard's estimates."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from callmeter.pricing.book import PriceBook
from callmeter.pricing.card import CostOf
from callmeter.pricing.catalog import Catalog
from callmeter.pricing.timeline import Context, Segment, Timeline
from callmeter.pricing.units import INPUT, OUTPUT

#: Names of models come from users: of (provider, model, tier, batch) at most twice this many are
#: kept.
MAX_REMEMBERED = 2048
#: A longer name is no model's; the wire's limit is 256.
_MAX_NAME = 512


class Priced(Struct, frozen=True, gc=False):
    """What a call costs in pico-USD, who says so (``own`` or ``genai-prices``), and by which
    book.
    """

    cost_pico: int
    source: str
    version: str


class CostParts(Struct, frozen=True, gc=False):
    """A cost taken apart: pico-USD for input, output, and the rest (requests, searches, …)."""

    input_pico: int
    output_pico: int
    other_pico: int


class Quote(Struct, frozen=True, gc=False):
    """What calls of one model, time and kind of usage cost: ``cost_of(*counts)`` in pico-USD.

    It holds for calls that begin from ``start_us`` to before ``end_us`` with just these units in
    this order; None as a cost means unpriced, as everywhere.
    """

    start_us: int
    end_us: int
    cost_of: CostOf
    source: str
    version: str


class Pricer:
    """Prices by one book, for ever. Safe from any thread; memory is bounded whatever is asked.

    A (provider, model, service tier, batch) is looked up once and compiled; the oldest that were
    not asked for again are forgotten.
    """

    def __init__(self, book: PriceBook) -> None:
        self.book = book
        self.version = book.version
        self._catalog = Catalog(book)
        self._recent: dict[tuple[str | None, str | None, str | None, bool], Timeline] = {}
        self._older: dict[tuple[str | None, str | None, str | None, bool], Timeline] = {}
        self._timelines: dict[tuple[tuple[tuple[int, bool], ...], Context], Timeline] = {}

    def price(
        self,
        provider: str | None,
        model: str | None,
        at_us: int,
        usage: Mapping[str, int],
        *,
        service_tier: str | None = None,
        batch: bool = False,
    ) -> Priced | None:
        """The cost of a call that began at ``at_us`` (microseconds UTC), or ``None``: unpriced.

        ``usage`` maps units to counts; ``input`` and ``output`` are totals, ``cache_read``,
        ``audio_input``, ``reasoning`` and their like are parts of them. Unpriced, rather than
        wrong, is a call

        - whose model the book does not know, or knows without a price at that time;
        - with a count of a unit that has no price and is part of no unit that has one;
        - whose usage contradicts itself: parts exceed their whole, or their whole is missing, or
          two priced units overlap and their common part is not given.

        Without a provider the model's name decides. A service tier or batch for which the book has
        no price of its own costs the standard price.
        """
        timeline = self._recent.get((provider, model, service_tier, batch))
        if timeline is None:
            timeline = self._timeline(provider, model, service_tier, batch)
        segment = timeline.current
        if not segment[0] <= at_us < segment[1]:
            segment = timeline.at(at_us)
        card = segment[2]
        if card is None:
            return None
        cost_pico = card.cost(usage)
        return None if cost_pico is None else Priced(cost_pico, segment[3], self.version)

    def quote(
        self,
        provider: str | None,
        model: str | None,
        at_us: int,
        units: tuple[str, ...],
        *,
        service_tier: str | None = None,
        batch: bool = False,
    ) -> Quote | None:
        """What :meth:`price` says of every usage of these units at that time, to be asked once.

        ``None``: all of them are unpriced.
        """
        timeline = self._recent.get((provider, model, service_tier, batch))
        if timeline is None:
            timeline = self._timeline(provider, model, service_tier, batch)
        segment = timeline.current
        if not segment.start_us <= at_us < segment.end_us:
            segment = timeline.at(at_us)
        if segment.card is None:
            return None
        cost_of = segment.card.cost_of(units)
        return Quote(segment.start_us, segment.end_us, cost_of, segment.source, self.version)

    def parts(
        self,
        provider: str | None,
        model: str | None,
        at_us: int,
        usage: Mapping[str, int],
        *,
        service_tier: str | None = None,
        batch: bool = False,
    ) -> CostParts | None:
        """The same cost taken apart; the parts add up to ``cost_pico`` exactly. Not for the hot
        path.
        """
        segment = self._segment(provider, model, at_us, service_tier, batch)
        parts = None if segment.card is None else segment.card.parts(usage)
        return None if parts is None else CostParts(*parts)

    def estimate(
        self,
        provider: str | None,
        model: str | None,
        at_us: int,
        input_tokens: int,
        max_output: int,
    ) -> int | None:
        """Pico-USD that a call may cost at most by its tokens, ``None`` if it is unpriced."""
        priced = self.price(provider, model, at_us, {INPUT: input_tokens, OUTPUT: max_output})
        return None if priced is None else priced.cost_pico

    def _segment(
        self,
        provider: str | None,
        model: str | None,
        at_us: int,
        service_tier: str | None,
        batch: bool,
    ) -> Segment:
        return self._timeline(provider, model, service_tier, batch).at(at_us)

    def _timeline(
        self, provider: str | None, model: str | None, service_tier: str | None, batch: bool
    ) -> Timeline:
        key = (provider, model, service_tier, batch)
        timeline = self._recent.get(key) or self._older.get(key)
        if timeline is None:
            tier = (service_tier or "").lower()
            if not model or max(len(model), len(provider or ""), len(tier)) > _MAX_NAME:
                return _NOTHING
            timeline = self._look_up(provider, model, Context(tier, batch or tier == "batch"))
        if len(self._recent) >= MAX_REMEMBERED:
            # Two generations: what is asked for again is carried over, the rest falls away.
            self._older, self._recent = self._recent, {}
        self._recent[key] = timeline
        return timeline

    def _look_up(self, provider: str | None, model: str, context: Context) -> Timeline:
        """Names that mean the same share one timeline, so there are no more of them than the book
        has models and contexts.
        """
        found = self._catalog.find(provider, model)
        if not found:
            return _NOTHING
        context = context.as_known_to(each.entry for each in found)
        key = (tuple((id(entry), variants) for entry, variants in found), context)
        return self._timelines.setdefault(key, Timeline(found, context))


#: Of what the book does not know.
_NOTHING = Timeline((), Context("", False))
