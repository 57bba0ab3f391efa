"""Which budgets a call belongs to, compiled so that a call costs next to nothing.

A rule looks at two kinds of fields. The *dimensions* (project, environment, service, provider,
model) are those that deltas have: rules that need nothing else are answered from deltas, once for
each combination in a checkpoint. The *fine* fields (user, session, tags) have to be looked at for
each call; rules that need the same fine fields share that look (docs/decisions/0012).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import attrgetter
from typing import Any, NamedTuple, Protocol

from msgspec import UNSET

from callmeter.schema.budgets import TAG, Budget
from callmeter.schema.spend import spend_placing

#: (project, environment, service, provider, model)
Dimensions = tuple[str, str, str, str, str]
_DIMENSIONS = ("project", "environment", "service", "provider", "model")
#: Combinations of dimensions whose rules are remembered.
_CACHE = 50_000

Test = Callable[[str], bool]


class Fine(Protocol):
    """What a call, a begun call and a cost event have in common."""

    @property
    def user(self) -> str: ...
    @property
    def session(self) -> str: ...
    @property
    def tags(self) -> Mapping[str, str]: ...


class Rule:
    """One definition, ready to match. ``fields`` are the fine fields it needs, sorted."""

    __slots__ = (
        "_per",
        "budget",
        "dimension_tests",
        "fields",
        "fine_tests",
        "is_value",
        "latency",
        "placing",
    )

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self.latency = budget.slo is not UNSET and budget.slo.measure == "latency"
        self.dimension_tests: list[tuple[int, Test]] = []
        fine: dict[str, Test] = {}
        for name, values in budget.scope.items():
            if name in _DIMENSIONS:
                self.dimension_tests.append((_DIMENSIONS.index(name), _test(values)))
            else:
                fine[name] = _test(values)
        fields = set(fine)
        per = budget.per
        if per and per not in _DIMENSIONS:
            fields.add(per)
        self.fields = tuple(sorted(fields))
        self.fine_tests = [(self.fields.index(name), test) for name, test in fine.items()]
        #: Where the entity is read: in the dimensions, or in the fine values.
        self._per: tuple[bool, int] | None = None
        if per in _DIMENSIONS:
            self._per = (True, _DIMENSIONS.index(per))
        elif per:
            self._per = (False, self.fields.index(per))
        #: Its entity is simply the value of its only fine field.
        self.is_value = self.fields == (per,) and not fine
        #: To be continued with an entity: see ``spend_place``.
        self.placing = spend_placing(budget.id)

    def covers(self, dims: Dimensions) -> bool:
        """Whether the dimensions are in scope; the fine fields are not looked at."""
        return all(test(dims[at]) for at, test in self.dimension_tests)

    def entity(self, dims: Dimensions, values: Sequence[str]) -> str | None:
        """The entity of covered dimensions and fine values (in the order of ``fields``).

        None if the values are out of scope, or if the limit is per something the call has not.
        """
        for at, test in self.fine_tests:
            if not test(values[at]):
                return None
        if self._per is None:
            return ""
        in_dims, at = self._per
        return (dims[at] if in_dims else values[at]) or None


class Covering(NamedTuple):
    """The rules that cover one combination of dimensions, by what else they need."""

    coarse: tuple[Rule, ...]
    fine: tuple[tuple[tuple[str, ...], tuple[Rule, ...]], ...]  # by their fine fields


class Rules:
    """Every definition that is counted, and the answers so far."""

    def __init__(self, budgets: Iterable[Budget] = ()) -> None:
        self.rules = [Rule(budget) for budget in budgets if budget.state != "deleted"]
        self._cache: dict[Dimensions, Covering] = {}

    def covering(self, dims: Dimensions) -> Covering:
        """The rules that cover these dimensions."""
        found = self._cache.get(dims)
        if found is None:
            if len(self._cache) >= _CACHE:
                self._cache.clear()
            rules = [rule for rule in self.rules if rule.covers(dims)]
            fine: dict[tuple[str, ...], list[Rule]] = {}
            for rule in rules:
                if rule.fields:
                    fine.setdefault(rule.fields, []).append(rule)
            found = self._cache[dims] = Covering(
                tuple(rule for rule in rules if not rule.fields),
                tuple((fields, tuple(group)) for fields, group in fine.items()),
            )
        return found

    def entities(self, dims: Dimensions, event: Fine) -> list[tuple[Rule, str]]:
        """Every rule that one event belongs to, with its entity."""
        covering = self.covering(dims)
        found = []
        for rule in covering.coarse:
            entity = rule.entity(dims, ())
            if entity is not None:
                found.append((rule, entity))
        for fields, rules in covering.fine:
            values = fine_values(fields, event)
            for rule in rules:
                entity = rule.entity(dims, values)
                if entity is not None:
                    found.append((rule, entity))
        return found


def fine_values(fields: Sequence[str], event: Fine) -> tuple[str, ...]:
    """The values of fine fields; "" where the event has none."""
    return tuple(
        event.tags.get(name[len(TAG) :], "") if name.startswith(TAG) else getattr(event, name)
        for name in fields
    )


def getter(fields: Sequence[str]) -> Callable[[Any], Any]:
    """Reads the fine fields of an event as a key: one value bare, several as a tuple."""
    if len(fields) == 1:
        (name,) = fields
        if not name.startswith(TAG):
            return attrgetter(name)
        tag = name[len(TAG) :]
        return lambda event: event.tags.get(tag, "")
    return lambda event: fine_values(fields, event)


def _test(values: Iterable[str]) -> Test:
    exact = frozenset(value for value in values if not value.endswith("*"))
    prefixes = tuple(value[:-1] for value in values if value.endswith("*"))
    if not prefixes:
        return exact.__contains__
    return lambda value: value in exact or value.startswith(prefixes)
