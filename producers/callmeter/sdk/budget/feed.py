"""What a source of a shared budget's status is, and how a record of it is told to the budget."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from callmeter.schema.budgets import decode_budget
from callmeter.schema.status import decode_status

if TYPE_CHECKING:
    from callmeter.sdk.budget.shared import SharedBudget


class Feed(Protocol):
    """Reads a source of status and tells a ``SharedBudget``.

    ``follow`` is called on the follower's thread, on a new feed whenever it has returned or raised:
    then the source is away. ``stop``, from any thread, makes it return or raise soon.
    """

    def follow(self, budget: SharedBudget) -> None: ...

    def stop(self) -> None: ...


def take_record(budget: SharedBudget, is_status: bool, key: str, value: bytes | None) -> None:
    """A record of ``budget-status`` or ``budgets``; those of other budgets are passed by."""
    name, _, entity = key.partition("|") if is_status else (key, "", "")
    if name != budget.name:
        return
    if is_status:
        budget.report(entity, None if value is None else decode_status(value))
    else:
        budget.define(None if value is None else decode_budget(value))
