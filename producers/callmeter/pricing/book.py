"""The price book: dated prices as plain, immutable data.

Money is an exact ``Fraction`` of pico-USD for one unit. For nearly every published price that is an
integer; a price per hour, or one that a reseller computed with floats, is not, and stays exact
nevertheless: rounding happens once, in the cost of a call.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Final, Literal

from msgspec import Struct

Source = Literal["own", "genai-prices"]
OWN: Final = "own"
GENAI_PRICES: Final = "genai-prices"


class Tier(Struct, frozen=True):
    """Above ``above`` input tokens in a call (strictly), *every* unit of the call costs
    ``price``.
    """

    above: int
    price: Fraction


class Rate(Struct, frozen=True, omit_defaults=True):
    """What one unit costs, in pico-USD, with tiers in ascending order."""

    price: Fraction
    tiers: tuple[Tier, ...] = ()


class Validity(Struct, frozen=True, omit_defaults=True):
    """When something holds, in event time: from (included) until (excluded), microseconds UTC.

    ``daily`` narrows it to a part of each UTC day, in microseconds of the day, start included and
    end excluded; an end before its start runs over midnight.
    """

    from_us: int | None = None
    until_us: int | None = None
    daily: tuple[int, int] | None = None

    def holds(self, at_us: int) -> bool:
        if self.from_us is not None and at_us < self.from_us:
            return False
        if self.until_us is not None and at_us >= self.until_us:
            return False
        if self.daily is None:
            return True
        start, end = self.daily
        moment = at_us % DAY_US
        if end < start:
            return moment >= start or moment < end
        return start <= moment < end


DAY_US = 86_400_000_000
ALWAYS = Validity()


class Period(Struct, frozen=True, omit_defaults=True):
    """Prices by unit and when they hold.

    ``factors`` multiply all of them for a service tier, or for ``"batch"``; they stack.
    """

    rates: dict[str, Rate]
    valid: Validity = ALWAYS
    factors: dict[str, Fraction] = {}


class Variant(Struct, frozen=True, omit_defaults=True):
    """Prices that replace the standard ones, unit by unit, for calls whose context has all of
    ``when``.

    Context keys: ``service_tier``, ``speed``, ``processing`` (``"batch"``); values match exactly.
    """

    when: dict[str, str]
    rates: dict[str, Rate]
    valid: Validity = ALWAYS


MatchOp = Literal["equals", "prefix", "suffix", "contains", "regex", "any", "all"]


class Match(Struct, frozen=True, omit_defaults=True, array_like=True):
    """A condition on a lower-cased name: ``op`` on ``text``, or ``any``/``all`` of others."""

    op: MatchOp
    text: str = ""
    of: tuple[Match, ...] = ()


class Entry(Struct, frozen=True, omit_defaults=True):
    """One model of one provider.

    Of ``periods`` the **last** that holds at the time of the event counts; if none holds the entry
    says nothing. Of ``variants`` that hold, the **first** decides a unit. ``minimum`` is the least
    count that is billed once a unit is used at all, by unit.
    """

    provider: str
    model: str
    match: Match
    periods: tuple[Period, ...]
    source: Source
    variants: tuple[Variant, ...] = ()
    minimum: dict[str, int] = {}


class Provider(Struct, frozen=True, omit_defaults=True):
    """How a provider is recognised: by its own name, else by the name of a model.

    ``fallbacks`` are providers whose models it sells under their names and at their prices.
    """

    id: str
    match: Match | None = None
    model_match: Match | None = None
    fallbacks: tuple[str, ...] = ()


class PriceBook(Struct, frozen=True, omit_defaults=True):
    """A version and what it says. Build with ``build_book``, never by hand: ``version`` is a
    digest.

    ``entries`` are in order of precedence within a provider; ``notes`` name what the source had and
    the book could not express, one line each.
    """

    version: str
    providers: tuple[Provider, ...]
    entries: tuple[Entry, ...]
    notes: tuple[str, ...] = ()
