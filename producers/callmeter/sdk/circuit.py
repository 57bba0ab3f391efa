"""A circuit breaker: once open it rejects without a look, until it has cooled down.

CLOSED ── overrun ──> OPEN ── cool-down ──> HALF_OPEN ── spend within the limit ──> CLOSED
                       ^                        │
                       └────── overrun ─────────┘
"""

from __future__ import annotations

from enum import Enum

from callmeter.clock import Clock

DEFAULT_COOLDOWN_S = 60.0


class CircuitState(Enum):
    """Closed lets calls through, open rejects them, half open tries again."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Circuit:
    """Not thread-safe: its owner's lock guards it. ``ValueError`` for a negative cool-down."""

    def __init__(self, clock: Clock, cooldown_s: float = DEFAULT_COOLDOWN_S) -> None:
        if not cooldown_s >= 0:
            raise ValueError(f"a cool-down is not negative: {cooldown_s!r}")
        self.cooldown_s = cooldown_s
        self._clock = clock
        self._opened_s: float | None = None

    @property
    def state(self) -> CircuitState:
        """The state at this moment."""
        if self._opened_s is None:
            return CircuitState.CLOSED
        cooled = self._clock.monotonic_s() - self._opened_s >= self.cooldown_s
        return CircuitState.HALF_OPEN if cooled else CircuitState.OPEN

    def open(self) -> None:
        """An overrun: the full cool-down begins, anew if it had begun before."""
        self._opened_s = self._clock.monotonic_s()

    def close(self) -> None:
        """All is well again."""
        self._opened_s = None
