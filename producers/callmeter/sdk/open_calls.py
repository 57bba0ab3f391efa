"""Calls that have begun and not ended: announced once, and counted in every heartbeat."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson

from callmeter.clock import Clock
from callmeter.sdk.intake import Intake

if TYPE_CHECKING:
    from callmeter.sdk.call import Call

#: A call still open after so long is announced with ``call_begin``, if the flush delay is longer.
BEGIN_AFTER_S = 0.25
OPEN_LONG_S = 30.0
#: Ids of long open calls in one heartbeat; the count covers the others.
MAX_OPEN_LONG = 1_000


class OpenCalls:
    """Asked by the shipper's thread; callers add to and take from ``intake.open`` meanwhile."""

    def __init__(self, intake: Intake, clock: Clock, flush_delay_s: float) -> None:
        self._intake = intake
        self._clock = clock
        self._after_ns = int(min(flush_delay_s, BEGIN_AFTER_S) * 1e9)
        self._begun: dict[Call, None] = {}

    def unannounced(self) -> list[Call]:
        """Calls that are open long enough to be announced and were not yet."""
        intake = self._intake
        if not intake.open:
            self._begun.clear()
            return []
        now_ns = intake.mono()
        before_ns = now_ns - self._after_ns
        still: dict[Call, None] = {}
        fresh: list[Call] = []
        for call in list(intake.open):
            # A call is in ``open`` a moment before its clock is read.
            if call in self._begun:
                still[call] = None
            elif getattr(call, "start_ns", now_ns + 1) <= before_ns:
                still[call] = None
                fresh.append(call)
        self._begun = still
        return fresh

    def heartbeat(self) -> bytes:
        """The line that says that the process lives, and what is open in it."""
        calls = list(self._intake.open)
        long_ns = self._intake.mono() - int(OPEN_LONG_S * 1e9)
        long = [c.id for c in calls if getattr(c, "start_ns", long_ns + 1) <= long_ns]
        return orjson.dumps(
            {
                "kind": "heartbeat",
                "ts_us": self._clock.now_us(),
                "open": len(calls),
                "open_long": long[:MAX_OPEN_LONG],
            }
        )
