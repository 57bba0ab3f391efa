"""Which entity of a budget a call belongs to; the same answer as the meter's own.

The meter compiles this for millions of calls (``callmeter_processors.matching``); a guard asks for
one. A contract test holds both equal.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from callmeter.schema.budgets import Budget

_TAG = "tag:"


class Facts(NamedTuple):
    """What budgets can ask of a call. Before a call is made, None is what nobody has said yet."""

    project: str = ""
    environment: str = ""
    service: str = ""
    provider: str | None = ""
    model: str | None = ""
    user: str = ""
    session: str = ""
    tags: Mapping[str, str] = {}

    def value(self, name: str) -> str | None:
        """A dimension, or ``tag:NAME``."""
        if name.startswith(_TAG):
            return self.tags.get(name[len(_TAG) :], "")
        found: str | None = getattr(self, name)
        return found


def entity_of(budget: Budget, facts: Facts) -> str | None:
    """The entity; None if the call is out of scope or lacks what the limit is per.

    What is not known yet counts as in scope: the guard names the budget on purpose.
    """
    for name, accepted in budget.scope.items():
        value = facts.value(name)
        if value is not None and not _accepts(accepted, value):
            return None
    if not budget.per:
        return ""
    return facts.value(budget.per) or None


def _accepts(accepted: list[str], value: str) -> bool:
    return any(
        value.startswith(each[:-1]) if each.endswith("*") else value == each for each in accepted
    )
