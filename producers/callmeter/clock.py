"""Clocks: what time it is, swappable in tests."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Wall and monotonic time. Never blocks, never raises; safe from any thread."""

    def now_us(self) -> int:
        """Microseconds since the epoch, UTC."""
        ...

    def monotonic_s(self) -> float:
        """Seconds on a clock that never goes back."""
        ...


class SystemClock:
    """The machine's clock."""

    def now_us(self) -> int:
        return time.time_ns() // 1000

    def monotonic_s(self) -> float:
        return time.monotonic()


class ManualClock:
    """A clock that moves only when told; both times move together."""

    def __init__(self, now_us: int = 1_700_000_000_000_000) -> None:
        self._now_us = now_us
        self._monotonic_us = 0

    def now_us(self) -> int:
        return self._now_us

    def monotonic_s(self) -> float:
        return self._monotonic_us / 1e6

    def advance(self, seconds: float) -> None:
        """Move forward by ``seconds``; negative values are refused."""
        if seconds < 0:
            raise ValueError("a clock does not go back")
        step = round(seconds * 1e6)
        self._now_us += step
        self._monotonic_us += step
