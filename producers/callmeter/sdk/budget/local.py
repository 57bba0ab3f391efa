"""A budget of one process: sums by window, and the circuit that a failing check opens.

Pure: the clock is given, nothing waits. A call is allowed iff what is spent is below the limit and
what is spent, reserved by calls under way, and estimated for this one does not exceed it.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

from callmeter.clock import Clock, SystemClock
from callmeter.schema.windows import WINDOWS, window_at
from callmeter.sdk.budget.limit import Refusal
from callmeter.sdk.circuit import DEFAULT_COOLDOWN_S, Circuit, CircuitState

#: Windows before the current one whose sums are kept for late spend.
_KEPT = 2


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits in pico-USD and tokens; None is no limit. ``ValueError`` for an unknown window or a
    negative limit.

    ``per_request_pico`` is measured against a call's estimate, ``per_user_pico`` counts within the
    window.
    """

    cost_pico: int | None = None
    window: str = "session"
    tokens: int | None = None
    per_request_pico: int | None = None
    per_user_pico: int | None = None

    def __post_init__(self) -> None:
        if self.window not in WINDOWS:
            raise ValueError(f"unknown window {self.window!r}: one of {', '.join(WINDOWS)}")
        amounts = (self.cost_pico, self.tokens, self.per_request_pico, self.per_user_pico)
        if any(amount is not None and amount < 0 for amount in amounts):
            raise ValueError("a limit is not negative")


class _Sum:
    """What was spent in one window."""

    __slots__ = ("pico", "tokens", "users")

    def __init__(self) -> None:
        self.pico = 0
        self.tokens = 0
        self.users: dict[str, int] = {}


class LocalBudget:
    """``Limits`` and what counts against them. Thread-safe; no method waits."""

    def __init__(
        self,
        limits: Limits,
        *,
        cooldown_s: float = DEFAULT_COOLDOWN_S,
        clock: Clock | None = None,
    ) -> None:
        self.limits = limits
        self._clock: Clock = SystemClock() if clock is None else clock
        self._lock = threading.Lock()
        self._sums: dict[int, _Sum] = {}
        self._start_us = self._window()
        #: Estimates of calls under way.
        self._reserved = 0
        self._circuit = Circuit(self._clock, cooldown_s)

    def check(self, estimate_pico: int | None = None, user: str | None = None) -> None:
        """``BudgetExceeded`` if a call may not begin; nothing is reserved."""
        with self._lock:
            refusal = self._judge(self._current(), estimate_pico or 0, user or "")
        if refusal is not None:
            raise refusal.error()

    def admit(self, estimate_pico: int, user: str) -> Refusal | None:
        """Whether a call may begin; if so its estimate is reserved until ``release``."""
        with self._lock:
            refusal = self._judge(self._current(), estimate_pico, user)
            if refusal is None:
                self._reserved += estimate_pico
            return refusal

    def release(self, estimate_pico: int) -> None:
        """The call is over: what it cost is recorded, its estimate is not needed any more."""
        with self._lock:
            self._reserved -= estimate_pico

    def record(
        self, pico: int, *, tokens: int = 0, user: str | None = None, at_us: int | None = None
    ) -> None:
        """Add what a call that began at ``at_us`` (default: now) cost; negative is a correction.

        A late one counts in the window of its start. Spend within the limit closes a half-open
        circuit.
        """
        with self._lock:
            current = self._current()
            start_us = self._window(at_us)
            spent = self._sums.setdefault(start_us, _Sum())
            self._trim()
            spent.pico += pico
            spent.tokens += tokens
            if user:
                spent.users[user] = spent.users.get(user, 0) + pico
            if (
                spent is current
                and self._circuit.state is CircuitState.HALF_OPEN
                and not self._over(current)
            ):
                self._circuit.close()

    def reset(self) -> None:
        """Forget what was spent and close the circuit; calls under way stay reserved."""
        with self._lock:
            self._sums = {}
            self._circuit.close()

    @property
    def spent_pico(self) -> int:
        """In the current window."""
        with self._lock:
            return self._current().pico

    @property
    def tokens(self) -> int:
        """In the current window."""
        with self._lock:
            return self._current().tokens

    def user_spent_pico(self, user: str) -> int:
        """Of one user in the current window."""
        with self._lock:
            return self._current().users.get(user, 0)

    def spent_at(self, at_us: int) -> int:
        """pico-USD of the window that a time lies in; 0 if that is long over."""
        with self._lock:
            spent = self._sums.get(self._window(at_us))
            return 0 if spent is None else spent.pico

    @property
    def circuit_state(self) -> CircuitState:
        """The circuit now; a window that has ended takes its circuit with it."""
        with self._lock:
            self._current()
            return self._circuit.state

    def _window(self, at_us: int | None = None) -> int:
        return window_at(self.limits.window, self._clock.now_us() if at_us is None else at_us)[0]

    def _current(self) -> _Sum:
        start_us = self._window()
        if start_us != self._start_us:
            self._start_us = start_us
            self._circuit.close()
        if start_us not in self._sums:
            self._sums[start_us] = _Sum()
            self._trim()
        return self._sums[start_us]

    def _trim(self) -> None:
        while len(self._sums) > 1 + _KEPT:
            del self._sums[min(self._sums)]

    def _over(self, spent: _Sum) -> bool:
        limit, tokens = self.limits.cost_pico, self.limits.tokens
        return (limit is not None and spent.pico > limit) or (
            tokens is not None and spent.tokens > tokens
        )

    def _judge(self, spent: _Sum, estimate: int, user: str) -> Refusal | None:
        limits = self.limits
        if self._circuit.state is CircuitState.OPEN:
            if limits.cost_pico is None and limits.tokens is not None:
                return Refusal("circuit_breaker", spent.tokens, limits.tokens, "tokens")
            return Refusal("circuit_breaker", spent.pico, limits.cost_pico or 0)
        if limits.per_request_pico is not None and estimate > limits.per_request_pico:
            return Refusal("per_request", estimate, limits.per_request_pico)
        if limits.per_user_pico is not None and user:
            own = spent.users.get(user, 0)
            if own >= limits.per_user_pico or own + estimate > limits.per_user_pico:
                return Refusal("per_user", own, limits.per_user_pico)
        refusal: Refusal | None = None
        limit, most = limits.cost_pico, limits.tokens
        if limit is not None and (
            spent.pico >= limit or spent.pico + self._reserved + estimate > limit
        ):
            refusal = Refusal(limits.window, spent.pico, limit)
        elif most is not None and spent.tokens >= most:
            refusal = Refusal("tokens", spent.tokens, most, "tokens")
        if refusal is not None:
            self._circuit.open()
        return refusal
