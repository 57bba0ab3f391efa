"""Keeps envelopes in this process: for tests and for looking at what would be sent."""

from __future__ import annotations

import time
from collections import deque

from callmeter.transports.protocol import Delivery, Outcome, Report, Sealed


class MemoryTransport:
    """A log of one partition in a list. ``envelopes`` may be read at any time."""

    name = "memory"

    def __init__(self) -> None:
        self.envelopes: list[Sealed] = []
        self._report: Report | None = None
        self._pending: deque[Delivery] = deque()
        self._closed = False

    def open(self, report: Report) -> None:
        self._report = report

    def send(self, envelope: Sealed) -> bool:
        if self._closed:
            return False
        self._pending.append(Delivery(envelope, Outcome.DELIVERED, 0, len(self.envelopes)))
        self.envelopes.append(envelope)
        return True

    def poll(self, timeout_s: float) -> None:
        if not self._pending:
            time.sleep(timeout_s)
        while self._pending and self._report is not None:
            self._report(self._pending.popleft())

    def close(self, timeout_s: float) -> None:
        if not self._closed:
            self._closed = True
            self.poll(0.0)
