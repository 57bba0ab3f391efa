"""Reading one ``[[price]]`` of an own price file: every fault found, none raised."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from datetime import UTC, date, datetime, time
from fractions import Fraction
from itertools import combinations
from typing import Any

from callmeter.pricing.book import Match, Period, Rate, Tier, Validity
from callmeter.pricing.units import REQUEST, UNITS, contains, overlap

_NUMBER = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,18})?\Z")
_UNIT_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}\Z")
_PRICE = 'USD per million units as quoted text, e.g. "0.15"'
_FACTOR = 'a factor as quoted text, e.g. "0.5"'
_TIER = 'expected { above = 200000, input = "0.30", … } with "above" in input tokens, ascending'
_MOMENT = "expected a date (UTC) like 2026-01-01, or a time with its offset"
#: The keys of an entry beside its units.
_KEYS = (
    "provider",
    "model",
    "aliases",
    "from",
    "until",
    "tiers",
    "units",
    "batch",
    "service_tiers",
)
#: USD per million units is a million pico-USD per unit.
_PICO_PER_UNIT = 10**6
_NOTHING = Fraction(0)


class EntryReader:
    """Reads one table. What :meth:`read` returns is good only if ``faults`` is empty after it.

    A fault is one line: the key and what was expected there.
    """

    def __init__(self, table: Mapping[str, Any]) -> None:
        self._table = table
        self.faults: list[str] = []

    def read(self) -> tuple[str, Match, Period]:
        """Provider, condition on the model, and the prices with their time."""
        provider = self._name("provider", self._table.get("provider"), wildcard=False).lower()
        match = self._match()
        valid = Validity(self._moment("from"), self._moment("until"))
        if valid.until_us is not None and valid.until_us <= (valid.from_us or 0):
            self._fault("until", "expected a time after from")
        prices = self._prices()
        tiers = self._tiers(prices)
        rates = {
            unit: Rate(price * _PICO_PER_UNIT, tuple(tiers.get(unit, ())))
            for unit, price in prices.items()
        }
        return provider, match, Period(rates, valid, self._factors())

    def _fault(self, key: str, message: str) -> None:
        self.faults.append(f"{key}: {message}")

    def _name(self, key: str, value: Any, *, wildcard: bool) -> str:
        expected = "a name, or a prefix with * at its end" if wildcard else "a name"
        text = value.strip() if isinstance(value, str) else ""
        stem = text.removesuffix("*") if wildcard else text
        if value is None:
            self._fault(key, f"missing, expected {expected}")
        elif not stem or "*" in stem or len(text) > 256:
            self._fault(key, f"expected {expected}")
        return text

    def _match(self) -> Match:
        aliases = self._table.get("aliases", [])
        if not isinstance(aliases, list):
            self._fault("aliases", "expected a list of names, each exact or a prefix with *")
            aliases = []
        names = [self._name("model", self._table.get("model"), wildcard=True)]
        names += [self._name("aliases", alias, wildcard=True) for alias in aliases]
        patterns = tuple(_pattern(name.lower()) for name in names)
        return patterns[0] if len(patterns) == 1 else Match("any", of=patterns)

    def _moment(self, key: str) -> int | None:
        value = self._table.get(key)
        if isinstance(value, str):
            try:
                value = datetime.fromisoformat(value)
            except ValueError:
                self._fault(key, _MOMENT)
                return None
        elif isinstance(value, date) and not isinstance(value, datetime):
            value = datetime.combine(value, time(), UTC)
        if value is None:
            return None
        if not isinstance(value, datetime):
            self._fault(key, _MOMENT)
            return None
        aware = value if value.tzinfo else value.replace(tzinfo=UTC)
        return int(aware.replace(microsecond=0).timestamp()) * 1_000_000 + aware.microsecond

    def _subtable(self, key: str) -> Mapping[str, Any]:
        value = self._table.get(key, {})
        if isinstance(value, dict):
            return value
        self._fault(key, "expected a table { name = value }")
        return {}

    def _prices(self) -> dict[str, Fraction]:
        prices: dict[str, Fraction] = {}
        for key, value in self._table.items():
            if key in UNITS:
                prices[key] = self._amount(key, value, _PRICE)
            elif key not in _KEYS:
                near = difflib.get_close_matches(key, (*UNITS, *_KEYS), 1)
                hint = f", did you mean {near[0]}?" if near else ""
                self._fault(key, f"unknown, expected a unit or a key of [[price]]{hint}")
        for key, value in self._subtable("units").items():
            if not _UNIT_NAME.match(key) or key in UNITS:
                self._fault(f"units.{key}", "expected a unit of your own, named like my_unit")
            prices[key] = self._amount(f"units.{key}", value, _PRICE)
        if not prices:
            self._fault("input", f"missing, expected at least one price in {_PRICE}")
        self._check_complete(prices)
        return prices

    def _amount(self, key: str, value: Any, expected: str) -> Fraction:
        if isinstance(value, float):
            self._fault(key, f'expected {expected}, not a float: write "{value!r}" in quotes')
            return _NOTHING
        text = str(value) if type(value) is int else value
        if isinstance(text, str) and _NUMBER.match(text):
            return Fraction(text)
        negative = isinstance(text, str) and text.startswith("-")
        self._fault(key, f"expected {expected}" + ", not a negative one" * negative)
        return _NOTHING

    def _factors(self) -> dict[str, Fraction]:
        factors = {
            key.lower(): self._amount(f"service_tiers.{key}", value, _FACTOR)
            for key, value in self._subtable("service_tiers").items()
        }
        if "batch" in factors:
            self._fault("service_tiers.batch", "expected batch beside service_tiers, not in it")
        if "batch" in self._table:
            factors["batch"] = self._amount("batch", self._table["batch"], _FACTOR)
        return factors

    def _tiers(self, prices: Mapping[str, Fraction]) -> dict[str, list[Tier]]:
        tiers: dict[str, list[Tier]] = {}
        tables = self._table.get("tiers", [])
        last = -1
        for table in tables if isinstance(tables, list) else [{}]:
            tier: Mapping[str, Any] = table if isinstance(table, dict) else {}
            above = tier.get("above")
            if type(above) is not int or above <= last or len(tier) == 1:
                self._fault("tiers", _TIER)
                return tiers
            last = above
            for unit, value in tier.items():
                if unit in prices:
                    price = self._amount(f"tiers.{unit}", value, _PRICE)
                    tiers.setdefault(unit, []).append(Tier(above, price * _PICO_PER_UNIT))
                elif unit != "above":
                    self._fault(f"tiers.{unit}", "expected a unit that has a price in this entry")
        return tiers

    def _check_complete(self, prices: Mapping[str, Fraction]) -> None:
        """A part can only be taken out of a whole that has a price, and two parts that overlap need
        a price for what is in both.
        """
        for part in prices.keys() & UNITS.keys():
            for whole in UNITS:
                if whole not in prices and contains(whole, part):
                    self._fault(part, f"needs a price for {whole} too, which it is a part of")
        for a, b in combinations(sorted(prices.keys() - {REQUEST}), 2):
            both = overlap(a, b)
            if both is not None and both not in prices:
                self._fault(both, f"missing, since {a} and {b} overlap in it")


def _pattern(name: str) -> Match:
    return Match("prefix", name[:-1]) if name.endswith("*") else Match("equals", name)
