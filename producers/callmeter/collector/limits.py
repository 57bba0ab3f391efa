"""How much each key, and all requests together, may put on the collector."""

from __future__ import annotations

from callmeter.clock import Clock


class RateLimit:
    """A token bucket for each key; tokens are envelopes.

    A request is let in while the bucket is not empty and may overdraw it, so one large POST does
    not starve for ever; the debt is waited off.
    """

    def __init__(self, clock: Clock, rate_per_s: float | None, burst: float | None) -> None:
        self._clock = clock
        self._rate = rate_per_s
        self._burst = max(burst or 2 * (rate_per_s or 0.0), 1.0)
        self._buckets: dict[str, tuple[float, float]] = {}  # key -> tokens, at monotonic time

    def wait_s(self, key: str, cost: int) -> float:
        """0 and the tokens are taken, or the seconds after which to come back."""
        if self._rate is None:
            return 0.0
        now_s = self._clock.monotonic_s()
        tokens, then_s = self._buckets.get(key, (self._burst, now_s))
        tokens = min(self._burst, tokens + (now_s - then_s) * self._rate)
        if tokens <= 0:
            self._buckets[key] = (tokens, now_s)
            return max(-tokens / self._rate, 1 / self._rate)
        self._buckets[key] = (tokens - cost, now_s)
        return 0.0


class MemoryGate:
    """Counts the bytes of all bodies in hand."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.held = 0

    def enter(self, size: int) -> bool:
        """Hold ``size`` bytes; False if that is too much beside what is held."""
        if self.held and self.held + size > self._limit:
            return False
        self.held += size
        return True

    def leave(self, size: int) -> None:
        """Let them go."""
        self.held -= size
