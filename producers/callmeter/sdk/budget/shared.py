"""A budget of the whole fleet, as one process knows it: its status, and local spend on top.

Pure: a feed tells what it reads, the call path asks, nothing waits. What counts is

    spent = status (spend - forgiven) + local spend that the status does not include yet

and a call is allowed iff spent is below the limit and spent, what calls under way may still cost,
and this call's estimate do not exceed it. Under way is the larger of the status's exposure (the
fleet's open calls, as of the status) and of this process's own estimates.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import NamedTuple

from msgspec import UNSET

from callmeter.clock import Clock
from callmeter.schema.budgets import Budget
from callmeter.schema.status import BudgetStatus
from callmeter.schema.windows import hour_of, window_at
from callmeter.sdk.budget.limit import Refusal
from callmeter.sdk.budget.scope import Facts, entity_of
from callmeter.sdk.budget.unseen import Unseen
from callmeter.sdk.circuit import Circuit, CircuitState

#: A stream that has said nothing for so long is cut off: two of its keep-alives, and some.
STALE_AFTER_S = 12.0


class Standing(NamedTuple):
    """What counts against one entity now; pico-USD."""

    spent: int
    tokens: int
    #: Of ``spent``, what the status does not include yet.
    unseen: int
    under_way: int


class SharedBudget:
    """One name. Thread-safe: a feed writes, callers ask; the lock is held for microseconds."""

    def __init__(
        self,
        name: str,
        clock: Clock,
        cooldown_s: float,
        stale_after_s: float = STALE_AFTER_S,
    ) -> None:
        self.name = name
        self._clock = clock
        self._stale_after_s = stale_after_s
        self._lock = threading.Lock()
        self._definition: Budget | None = None
        self._statuses: dict[str, BudgetStatus] = {}
        self._unseen = Unseen()
        self._reserved: dict[str, int] = {}
        self._heard_s: float | None = None
        self._window_us = (0, 0)
        self._circuit = Circuit(clock, cooldown_s)

    # -- what a feed tells -----------------------------------------------------------------------

    def snapshot(self, definition: Budget | None, statuses: Iterable[BudgetStatus]) -> None:
        """All there is, at the beginning of a stream."""
        with self._lock:
            self._heard_s = self._clock.monotonic_s()
            self._define(definition)
            self._statuses = {}
            self._unseen.begin_anew()
            for status in statuses:
                self._take(status)

    def define(self, definition: Budget | None) -> None:
        """The definition has changed, or is gone."""
        with self._lock:
            self._heard_s = self._clock.monotonic_s()
            self._define(definition)

    def report(self, entity: str, status: BudgetStatus | None) -> None:
        """An entity's status has changed, or is gone."""
        with self._lock:
            self._heard_s = self._clock.monotonic_s()
            if status is None:
                self._statuses.pop(entity, None)
            else:
                self._take(status)

    def heard(self) -> None:
        """The stream lives and has nothing new."""
        self._heard_s = self._clock.monotonic_s()

    # -- what this process does ------------------------------------------------------------------

    def ended(self, call_id: str, facts: Facts, started_us: int, pico: int, tokens: int) -> None:
        """A call of this process has ended, in scope or not."""
        with self._lock:
            definition = self._definition
            entity = "" if definition is None else entity_of(definition, facts)
            if entity is None:
                return
            if pico or tokens:
                self._unseen.ended(call_id, entity, hour_of(started_us), pico, tokens)
            if definition is not None and self._circuit.state is CircuitState.HALF_OPEN:
                standing = self._standing(definition, entity)
                if not _used_up(definition, standing):
                    self._circuit.close()

    def delivered(self, call_ids: Iterable[str], partition: int, offset: int) -> None:
        """The log has these calls."""
        with self._lock:
            self._unseen.delivered(call_ids, partition, offset, self._clock.monotonic_s())

    def forked(self) -> None:
        """In a forked child: what was spent is the parent's, and it tells of it."""
        self._lock = threading.Lock()
        self._unseen = Unseen()
        self._reserved = {}

    # -- what a guard asks -----------------------------------------------------------------------

    @property
    def fresh(self) -> bool:
        """Whether the stream has told of the budget, and was heard lately."""
        heard_s = self._heard_s
        return (
            self._definition is not None
            and heard_s is not None
            and self._clock.monotonic_s() - heard_s < self._stale_after_s
        )

    @property
    def loaded(self) -> bool:
        """Whether the stream has told what there is, be it that there is no such budget."""
        return self._heard_s is not None

    def admit(self, facts: Facts, estimate: int, *, stale_stops: bool) -> Refusal | str | None:
        """Why a call may not begin; or the entity its estimate is reserved for (see ``release``),
        None if it is out of scope or nothing is known.
        """
        with self._lock:
            if stale_stops and not self.fresh:
                return Refusal("stale", 0, 0, budget=self.name)
            definition = self._definition
            if definition is None or definition.state != "active":
                return None
            entity = entity_of(definition, facts)
            if entity is None:
                return None
            refusal = self._judge(definition, entity, estimate)
            if refusal is not None:
                return refusal._replace(warns_only=definition.action != "stop")
            self._reserved[entity] = self._reserved.get(entity, 0) + estimate
            return entity

    def release(self, entity: str, estimate: int) -> None:
        """The call is over."""
        with self._lock:
            left = self._reserved.get(entity, 0) - estimate
            if left > 0:
                self._reserved[entity] = left
            else:
                self._reserved.pop(entity, None)

    def standing(self, entity: str = "") -> Standing:
        """What counts now; zeros while nothing is known."""
        with self._lock:
            definition = self._definition
            if definition is None:
                return Standing(0, 0, 0, 0)
            return self._standing(definition, entity)

    @property
    def circuit_state(self) -> CircuitState:
        """The circuit; always closed where the limit is per something."""
        with self._lock:
            if self._definition is not None:
                self._window(self._definition, self._statuses.get(""))
            return self._circuit.state

    # -- inside ----------------------------------------------------------------------------------

    def _define(self, definition: Budget | None) -> None:
        if definition is not None and definition.state == "deleted":
            definition = None
        old, self._definition = self._definition, definition
        if old is None or definition is None or old.version != definition.version:
            self._circuit.close()  # raised, reset or another budget altogether: look anew

    def _take(self, status: BudgetStatus) -> None:
        self._statuses[status.entity] = status
        self._unseen.included(status.entity, status.included)

    def _window(self, definition: Budget, status: BudgetStatus | None) -> tuple[int, int]:
        """The window now: by this clock, or the status's if that is ahead of it."""
        window = window_at(definition.window, self._clock.now_us())
        if status is not None and status.basis == definition.basis:
            window = max(window, (status.start_us, status.end_us))
        if window > self._window_us:
            if self._window_us != (0, 0):
                self._circuit.close()
            self._unseen.forget_before(hour_of(window[0]))
        self._window_us = max(window, self._window_us)
        return window

    def _standing(self, definition: Budget, entity: str) -> Standing:
        status = self._statuses.get(entity)
        start_us, end_us = self._window(definition, status)
        if self.fresh:
            self._unseen.expire(entity, self._clock.monotonic_s())
        pico, tokens = self._unseen.sum(entity, hour_of(start_us), hour_of(end_us) or None)
        under_way = self._reserved.get(entity, 0)
        if (
            status is None
            or status.basis != definition.basis  # a sum of something else
            or status.start_us != start_us  # of a window that has ended
        ):
            return Standing(pico, tokens, pico, under_way)
        under_way = max(under_way, int(status.exposure_pico))
        if status.resets < definition.resets:  # forgiven, and the status does not know it yet
            return Standing(pico, tokens, pico, under_way)
        spent = int(status.spend_pico) - int(status.forgiven_pico)
        used = status.tokens - status.forgiven_tokens
        return Standing(spent + pico, used + tokens, pico, under_way)

    def _judge(self, definition: Budget, entity: str, estimate: int) -> Refusal | None:
        standing = self._standing(definition, entity)
        breaks = not definition.per
        limit = None if definition.limit_pico is UNSET else int(definition.limit_pico)
        tokens = None if definition.limit_tokens is UNSET else definition.limit_tokens
        state = self._circuit.state if breaks else CircuitState.CLOSED
        if state is CircuitState.OPEN:
            if limit is None and tokens is not None:
                return Refusal("circuit_breaker", standing.tokens, tokens, "tokens", self.name)
            return Refusal("circuit_breaker", standing.spent, limit or 0, budget=self.name)
        refusal: Refusal | None = None
        if limit is not None and (
            standing.spent >= limit or standing.spent + standing.under_way + estimate > limit
        ):
            refusal = Refusal(definition.window, standing.spent, limit, budget=self.name)
        elif tokens is not None and standing.tokens >= tokens:
            refusal = Refusal("tokens", standing.tokens, tokens, "tokens", self.name)
        elif definition.slo is not UNSET and self._broken(entity):
            refusal = Refusal("objective", 0, 0, budget=self.name)
        if refusal is not None and breaks:
            self._circuit.open()
        return refusal

    def _broken(self, entity: str) -> bool:
        """Whether an objective is not met."""
        status = self._statuses.get(entity)
        return (
            status is not None
            and status.state == "exceeded"
            and (not status.end_us or self._clock.now_us() < status.end_us)
        )


def _used_up(definition: Budget, standing: Standing) -> bool:
    limit, tokens = definition.limit_pico, definition.limit_tokens
    return (limit is not UNSET and standing.spent >= int(limit)) or (
        tokens is not UNSET and standing.tokens >= tokens
    )
