"""How much each key, and all requests together, may put on the collector."""

from __future__ import annotations

from callmeter.clock import Clock


class RateLimit:
    """A token bucket for each key; tokens are envelopes, or bytes.

    A request is let in while the bucket is not empty and may overdraw it, so one large POST does
    not starve for ever; the debt is waited off.
    """

    def __init__(self, clock: Clock, rate_per_s: float | None, burst: float | None) -> None:
        self._clock = clock
        self._rate = rate_per_s
        self._burst = burst
        self._buckets: dict[str, tuple[float, float]] = {}  # key -> tokens, at monotonic time

    def wait_s(self, key: str, cost: float, rate_per_s: float | None = None) -> float:
        """0 and the tokens are taken, or the seconds after which to come back.

        ``rate_per_s`` is the key's own where it has one. A cost of 0 only asks.
        """
        rate = rate_per_s or self._rate
        if rate is None:
            return 0.0
        burst = max((self._burst if rate_per_s is None else None) or 2 * rate, 1.0)
        now_s = self._clock.monotonic_s()
        tokens, then_s = self._buckets.get(key, (burst, now_s))
        tokens = min(burst, tokens + (now_s - then_s) * rate)
        if tokens <= 0:
            self._buckets[key] = (tokens, now_s)
            return max(-tokens / rate, 1 / rate)
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
