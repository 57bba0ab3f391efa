"""What is wrong with a book, and what changed between two: for ``callmeter prices``."""

from __future__ import annotations

from itertools import combinations

from msgspec import Struct

from callmeter.errors import DataError
from callmeter.pricing.book import Entry, Match, Period, PriceBook, Rate, Variant
from callmeter.pricing.codec import content_digest
from callmeter.pricing.matching import compile_match
from callmeter.pricing.units import REQUEST, UNITS, contains, overlap


class PriceChange(Struct, frozen=True):
    """One model whose entry was ``added``, ``removed`` or ``changed``; ``source`` as in the
    book.
    """

    what: str
    provider: str
    model: str
    source: str


def check_book(book: PriceBook) -> list[str]:
    """Everything wrong with a book, one line each, empty if it is sound.

    Looks for a version that is not of this content, conditions that cannot be tried, negative
    prices, tiers out of order, a part priced without its whole, overlapping units without a price
    for their common part; and repeats the book's own notes.
    """
    problems = list(book.notes)
    if book.version.rpartition("+")[2] != content_digest(book):
        problems.append(f"version {book.version} is not of this content: the book was altered")
    known = {provider.id for provider in book.providers}
    for provider in book.providers:
        for match in (provider.match, provider.model_match):
            problems += _check_match(provider.id, match)
        problems += [
            f"{provider.id}: falls back to {other}, which the book does not have"
            for other in provider.fallbacks
            if other not in known
        ]
    for entry in book.entries:
        name = f"{entry.provider} {entry.model}"
        problems += _check_match(name, entry.match)
        dated: tuple[Period | Variant, ...] = (*entry.periods, *entry.variants)
        for each in dated:
            problems += [f"{name}: {fault}" for fault in _check_prices(entry, each)]
    return problems


def diff_books(old: PriceBook, new: PriceBook) -> list[PriceChange]:
    """Entries that differ, by provider and model; moving an entry is no change."""
    before, after = _by_name(old), _by_name(new)
    changes: list[PriceChange] = []
    for key in sorted(before.keys() | after.keys()):
        source, provider, model = key
        if key not in before:
            what = "added"
        elif key not in after:
            what = "removed"
        elif before[key] != after[key]:
            what = "changed"
        else:
            continue
        changes.append(PriceChange(what, provider, model, source))
    return changes


def _by_name(book: PriceBook) -> dict[tuple[str, str, str], list[Entry]]:
    named: dict[tuple[str, str, str], list[Entry]] = {}
    for entry in book.entries:
        named.setdefault((entry.source, entry.provider, entry.model), []).append(entry)
    return named


def _check_match(name: str, match: Match | None) -> list[str]:
    if match is None:
        return []
    try:
        compile_match(match)
    except DataError as exc:
        return [f"{name}: {exc}"]
    return []


def _check_prices(entry: Entry, prices: Period | Variant) -> list[str]:
    faults: list[str] = []
    for unit, rate in prices.rates.items():
        faults += [f"{unit}: {fault}" for fault in _check_rate(rate)]
    if isinstance(prices, Variant):
        # a variant replaces prices of its entry's periods and need not be whole by itself
        priced = {unit for period in entry.periods for unit in period.rates} | set(prices.rates)
    else:
        priced = set(prices.rates)
        faults += [f"factor {key}: negative" for key, value in prices.factors.items() if value < 0]
    for part in priced & UNITS.keys():
        missing = [whole for whole in UNITS if contains(whole, part) and whole not in priced]
        faults += [f"{part}: its whole, {whole}, has no price" for whole in missing]
    for a, b in combinations(sorted(priced - {REQUEST}), 2):
        both = overlap(a, b)
        if both is not None and both not in priced:
            faults.append(f"{both}: no price, though {a} and {b} overlap in it")
    return faults


def _check_rate(rate: Rate) -> list[str]:
    faults = ["negative price"] if min([rate.price, *(t.price for t in rate.tiers)]) < 0 else []
    starts = [tier.above for tier in rate.tiers]
    if starts != sorted(set(starts)):
        faults.append("tiers out of order")
    return faults
