"""Building the book: genai-prices with the user's own prices laid over it."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache

from msgspec.structs import replace

from callmeter.pricing.book import Entry, PriceBook
from callmeter.pricing.codec import content_digest
from callmeter.pricing.genai import read_genai_prices
from callmeter.pricing.own import OwnPrices


def build_book(own: OwnPrices | None = None, now: datetime | None = None) -> PriceBook:
    """A book of all prices, own ones first. Its version is the UTC date of ``now`` and a digest of
    the content, like ``2026-11-01+ab12cd34``: the same content built twice differs in the date
    only.

    Without ``now`` the date is that of the newest price change the book knows and has seen happen.
    Raises ``MissingExtraError`` without genai-prices.
    """
    providers, listed, notes = read_genai_prices()
    entries = (*(own.entries if own else ()), *listed)
    day = now.astimezone(UTC) if now else _newest_change(entries)
    book = PriceBook(version="", providers=providers, entries=entries, notes=notes)
    return replace(book, version=f"{day:%Y-%m-%d}+{content_digest(book)}")


@cache
def installed_book() -> PriceBook:
    """The book of the installed genai-prices, built once in a process. Two machines with the same
    package get the same version.
    """
    return build_book()


def _newest_change(entries: tuple[Entry, ...]) -> datetime:
    now_us = int(datetime.now(UTC).timestamp()) * 1_000_000
    starts = [each.valid.from_us or 0 for entry in entries for each in entry.periods]
    starts += [each.valid.from_us or 0 for entry in entries for each in entry.variants]
    newest_us = max((us for us in starts if us <= now_us), default=0)
    return datetime.fromtimestamp(newest_us // 1_000_000, UTC)
