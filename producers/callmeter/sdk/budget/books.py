"""All that one guard asks: its own limits, and a shared budget."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from callmeter.sdk.budget.limit import Refusal
from callmeter.sdk.budget.local import LocalBudget
from callmeter.sdk.budget.price import Worth
from callmeter.sdk.budget.scope import Facts
from callmeter.sdk.budget.shared import SharedBudget
from callmeter.sdk.circuit import CircuitState

_SEVERITY = (CircuitState.OPEN, CircuitState.HALF_OPEN, CircuitState.CLOSED)


class Reserved(NamedTuple):
    """What is freed when a call is over."""

    estimate: int
    local: tuple[LocalBudget, ...]
    entity: str | None


class Books:
    """Asked in the call path: nothing here waits for I/O."""

    def __init__(
        self, local: Sequence[LocalBudget], shared: SharedBudget | None, *, stale_stops: bool
    ) -> None:
        self.local = tuple(local)
        self.shared = shared
        self._stale_stops = stale_stops

    def admit(self, facts: Facts, estimate: int) -> Reserved | Refusal:
        """All of them must agree; what the others reserved is freed if one does not."""
        held: list[LocalBudget] = []
        refusal: Refusal | None = None
        for budget in self.local:
            refusal = budget.admit(estimate, facts.user)
            if refusal is not None:
                break
            held.append(budget)
        entity: str | None = None
        if refusal is None and self.shared is not None:
            answer = self.shared.admit(facts, estimate, stale_stops=self._stale_stops)
            if isinstance(answer, Refusal):
                refusal = answer
            else:
                entity = answer
        if refusal is None:
            return Reserved(estimate, tuple(held), entity)
        self.release(Reserved(estimate, tuple(held), None))
        return refusal

    def release(self, reserved: Reserved) -> None:
        """A call is over."""
        for budget in reserved.local:
            budget.release(reserved.estimate)
        if reserved.entity is not None and self.shared is not None:
            self.shared.release(reserved.entity, reserved.estimate)

    def record(self, worth: Worth) -> None:
        """Count a call against the own limits; the shared budget hears of every call anyway."""
        for budget in self.local:
            budget.record(worth.pico, tokens=worth.tokens, user=worth.user, at_us=worth.started_us)

    @property
    def circuit_state(self) -> CircuitState:
        """The worst of all."""
        states = {budget.circuit_state for budget in self.local}
        if self.shared is not None:
            states.add(self.shared.circuit_state)
        return next((state for state in _SEVERITY if state in states), CircuitState.CLOSED)
