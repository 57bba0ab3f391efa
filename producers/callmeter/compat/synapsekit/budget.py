"""``BudgetGuard``: a model that is not asked once its budget is used up."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

from callmeter.clock import Clock
from callmeter.compat.synapsekit.invocation import Invocation
from callmeter.compat.synapsekit.prices import require_prices
from callmeter.compat.synapsekit.wrapping import LLMWrapper
from callmeter.money import from_pico
from callmeter.sdk.budget.guard import BudgetExceeded, BudgetLimit, BudgetWarning, LocalBudget
from callmeter.sdk.budget.limit import Money, money_pico
from callmeter.sdk.circuit import DEFAULT_COOLDOWN_S, CircuitState

ACTIONS = ("raise", "warn")

#: What a call is expected to cost, in USD, from its prompt and keywords; None is unknown.
Estimator = Callable[[Any, dict[str, Any]], Money | None]


class BudgetGuard(LLMWrapper):
    """Asks the budget before every call and tells it the cost afterwards.

    ``on_exceeded``: ``raise`` a ``BudgetExceeded`` before the model is asked, or ``warn`` (a
    ``BudgetWarning``) and go on; ``ValueError`` for anything else. ``estimate`` says what a call
    may cost; without it that is unknown and counts as 0. The user of a call is its keyword ``user``
    or ``user_id``, which the model gets too. A failed call costs nothing.

    >>> guard = BudgetGuard(llm, BudgetLimit(max_cost_usd=1.00, window="day"))
    """

    def __init__(
        self,
        llm: Any,
        limit: BudgetLimit,
        on_exceeded: str = "raise",
        *,
        estimate: Estimator | None = None,
        cooldown_s: float = DEFAULT_COOLDOWN_S,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(llm)
        if on_exceeded not in ACTIONS:
            raise ValueError(f"on_exceeded is one of {', '.join(ACTIONS)}, not {on_exceeded!r}")
        require_prices()
        self.limit = limit
        self.on_exceeded = on_exceeded
        self._estimate = estimate
        self._budget = LocalBudget(limit.limits(), cooldown_s=cooldown_s, clock=clock)

    @property
    def circuit_state(self) -> CircuitState:
        """Of the breaker that rejects calls without a look after an overrun."""
        return self._budget.circuit_state

    @property
    def spent(self) -> float:
        """USD in the current window."""
        return float(from_pico(self._budget.spent_pico))

    def user_spent(self, user: str) -> float:
        """USD of one user in the current window."""
        return float(from_pico(self._budget.user_spent_pico(user)))

    def check_before(self, estimated_cost: Money | None = None, user_id: str | None = None) -> None:
        """For calls that are made elsewhere: may one be made? ``BudgetExceeded``, or a warning."""
        estimate = None if estimated_cost is None else money_pico(estimated_cost)
        try:
            self._budget.check(estimate, user_id)
        except BudgetExceeded as exc:
            if self.on_exceeded == "raise":
                raise
            warnings.warn(str(exc), BudgetWarning, stacklevel=2)

    def record_spend(self, cost: Money, user_id: str | None = None, *, tokens: int = 0) -> None:
        """For calls that are made elsewhere: what one has cost."""
        self._budget.record(money_pico(cost), tokens=tokens, user=user_id)

    def reset(self) -> None:
        """Nothing spent, circuit closed."""
        self._budget.reset()

    def before(self, one: Invocation) -> None:
        """Ask the budget."""
        expected = None if self._estimate is None else self._estimate(one.prompt, one.kwargs)
        self.check_before(expected, _user(one))

    def after(self, one: Invocation, answer: Any) -> None:
        """Tell the budget what the call has cost, in the window in which it began."""
        usage = one.usage or {}
        self._budget.record(
            one.cost_pico,
            tokens=usage.get("input", 0) + usage.get("output", 0),
            user=_user(one),
            at_us=int(one.started.timestamp() * 1e6),
        )


def _user(one: Invocation) -> str | None:
    user = one.kwargs.get("user") or one.kwargs.get("user_id")
    return None if user is None else str(user)
