"""Conditions on names, compiled to functions; see ``book.Match``."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from callmeter.errors import DataError
from callmeter.pricing.book import Match

Predicate = Callable[[str], bool]


def compile_match(match: Match) -> Predicate:
    """A function on a lower-cased name. ``DataError`` for a regular expression that is none."""
    text = match.text
    if match.op == "equals":
        return lambda name: name == text
    if match.op == "prefix":
        return lambda name: name.startswith(text)
    if match.op == "suffix":
        return lambda name: name.endswith(text)
    if match.op == "contains":
        return lambda name: text in name
    if match.op == "regex":
        try:
            search = re.compile(text).search
        except re.error as exc:
            raise DataError(f"price book: not a regular expression: {text!r}: {exc}") from exc
        return lambda name: search(name) is not None
    parts = tuple(compile_match(part) for part in match.of)
    if match.op == "any":
        return lambda name: any(part(name) for part in parts)
    return lambda name: all(part(name) for part in parts)


def specificity(match: Match, name: str) -> int:
    """How closely a pattern of an own price file fits: 0 not at all, else the length of its prefix
    plus one; an exact name beats every prefix.

    >>> specificity(Match("prefix", "gpt-"), "gpt-4o")
    5
    """
    if match.op == "any":
        return max((specificity(part, name) for part in match.of), default=0)
    if match.op == "equals":
        return 1 << 30 if match.text == name else 0
    return len(match.text) + 1 if match.op == "prefix" and name.startswith(match.text) else 0


class FirstMatch:
    """The position of the first of many conditions that a name meets.

    Exact names are looked up, only the other conditions are tried one by one, in order: a provider
    with a thousand models costs a dictionary look-up and some tens of string tests.
    """

    def __init__(self, matches: Sequence[Match]) -> None:
        self._exact: dict[str, int] = {}
        self._tests: list[tuple[int, Predicate]] = []
        for position, match in enumerate(matches):
            rest: list[Match] = []
            for part in match.of if match.op == "any" else (match,):
                if part.op == "equals":
                    self._exact.setdefault(part.text, position)
                else:
                    rest.append(part)
            self._tests += [(position, compile_match(part)) for part in rest]

    def __call__(self, name: str) -> int | None:
        exact = self._exact.get(name)
        for position, test in self._tests:
            if exact is not None and position >= exact:
                return exact
            if test(name):
                return position
        return exact
