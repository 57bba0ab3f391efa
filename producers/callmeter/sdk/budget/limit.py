"""What is said when a limit is reached."""

from __future__ import annotations

from decimal import Decimal
from typing import NamedTuple

from callmeter.errors import EXIT_NO, CallmeterError
from callmeter.money import float_to_pico, format_usd, from_pico, to_pico

#: USD. A float goes through ``repr``, so 0.1 means 0.1: facades promise floats.
Money = Decimal | str | int | float


class BudgetExceeded(CallmeterError):  # noqa: N818  # the name that users of budget guards know
    """A call was stopped before it was made.

    ``limit_type`` says by what: a window (``session``, ``hour``, ``day``, ``month``), ``tokens``,
    ``per_request``, ``per_user``, ``circuit_breaker`` (the circuit is open), or ``stale`` (the
    status of a shared budget is cut off and ``on_stale`` is ``stop``). ``spent`` and ``limit`` are
    USD, or tokens where a limit of tokens was reached. ``budget`` is a shared budget's name.
    """

    exit_code = EXIT_NO

    def __init__(
        self,
        message: str,
        *,
        spent: Decimal | int = Decimal(0),
        limit: Decimal | int = Decimal(0),
        limit_type: str = "",
        budget: str = "",
    ) -> None:
        super().__init__(message)
        self.spent = spent
        self.limit = limit
        self.limit_type = limit_type
        self.budget = budget


class BudgetWarning(UserWarning):
    """A limit is reached and the call goes on, because the guard or the budget only warns."""


class Refusal(NamedTuple):
    """Why a call may not go on. Amounts are pico-USD, or tokens if ``unit`` says so."""

    limit_type: str
    spent: int
    limit: int
    unit: str = "USD"
    budget: str = ""
    #: The budget's action is ``alert``: whatever the guard does, the call goes on.
    warns_only: bool = False

    def error(self) -> BudgetExceeded:
        """The exception for people and programs."""
        whose = f"budget {self.budget!r}" if self.budget else "the budget"
        if self.limit_type == "stale":
            text = f"the status of {whose} is not known and on_stale is 'stop'"
        elif self.unit == "tokens":
            text = f"{whose} is used up: {self.spent} of {self.limit} tokens ({self.limit_type})"
        else:
            spent, limit = format_usd(self.spent), format_usd(self.limit)
            text = f"{whose} is used up: {spent} of {limit} USD ({self.limit_type})"
        tokens = self.unit == "tokens"
        return BudgetExceeded(
            text,
            spent=self.spent if tokens else from_pico(self.spent),
            limit=self.limit if tokens else from_pico(self.limit),
            limit_type=self.limit_type,
            budget=self.budget,
        )


def money_pico(amount: Money) -> int:
    """An amount of USD in pico-USD; ``ValueError`` or ``TypeError`` if it is none."""
    return float_to_pico(amount) if isinstance(amount, float) else to_pico(amount)
