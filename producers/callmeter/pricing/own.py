"""A user's own price file: TOML, checked to the last key, in USD per million units as text.

``docs/guides/prices.md`` shows the format with examples; ``own_entry`` reads one ``[[price]]``.
"""

from __future__ import annotations

import os
import tomllib
from itertools import pairwise
from pathlib import Path

from msgspec import Struct

from callmeter.errors import DataError
from callmeter.pricing.book import OWN, Entry, Match, Period
from callmeter.pricing.own_entry import EntryReader


class OwnPrices(Struct, frozen=True):
    """What a price file says: entries that are laid over those of genai-prices."""

    entries: tuple[Entry, ...]


def load_own_prices(path: str | os.PathLike[str]) -> OwnPrices:
    """Read an own price file. ``DataError`` with a line for each fault, or if it cannot be read."""
    try:
        text = Path(path).read_text("utf-8")
    except OSError as exc:
        raise DataError(f"{path}: cannot read the price file: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        raise DataError(f"{path}: the price file is not UTF-8: {exc}") from exc
    return parse_own_prices(text, str(path))


def parse_own_prices(text: str, name: str = "prices.toml") -> OwnPrices:
    """The same from text; ``name`` is what errors call the file."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        raise DataError(f"{name}: not TOML: {exc}") from exc
    faults = [f"{key}: unknown, expected [[price]] entries" for key in document if key != "price"]
    tables = document.get("price", [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise DataError(f"{name}: price: expected entries that begin with [[price]]")
    dated: dict[tuple[str, Match], list[tuple[int, Period]]] = {}
    for number, table in enumerate(tables, 1):
        reader = EntryReader(table)
        provider, match, period = reader.read()
        faults += [f"price {number}: {fault}" for fault in reader.faults]
        dated.setdefault((provider, match), []).append((number, period))
    entries: list[Entry] = []
    for (provider, match), numbered in dated.items():
        numbered.sort(key=lambda each: _start(each[1]))
        faults += [
            f"price {other}: from: same provider, model and start as price {one}"
            for (one, earlier), (other, later) in pairwise(numbered)
            if _start(earlier) == _start(later)
        ]
        label = " ".join(part.text + "*" * (part.op == "prefix") for part in match.of or (match,))
        periods = tuple(period for _, period in numbered)
        entries.append(Entry(provider, label, match, periods, OWN))
    if faults:
        raise DataError("\n".join(f"{name}: {fault}" for fault in faults))
    return OwnPrices(tuple(entries))


def _start(period: Period) -> tuple[bool, int]:
    """Orders periods by their start, those without one first."""
    start_us = period.valid.from_us
    return start_us is not None, start_us or 0
