"""Counts envelopes as delivered and forgets them: for a program that sends nowhere."""

from __future__ import annotations

import time
from collections import deque

from callmeter.transports.protocol import Delivery, Outcome, Report, Sealed


class NoopTransport:
    """``envelopes`` and ``events`` count what went through."""

    name = "noop"

    def __init__(self) -> None:
        self.envelopes = 0
        self.events = 0
        self._report: Report | None = None
        self._pending: deque[Sealed] = deque()
        self._closed = False

    def open(self, report: Report) -> None:
        self._report = report

    def send(self, envelope: Sealed) -> bool:
        if self._closed:
            return False
        self.envelopes += 1
        self.events += envelope.n
        self._pending.append(envelope)
        return True

    def poll(self, timeout_s: float) -> None:
        if not self._pending:
            time.sleep(timeout_s)
        while self._pending and self._report is not None:
            self._report(Delivery(self._pending.popleft(), Outcome.DELIVERED))

    def close(self, timeout_s: float) -> None:
        if not self._closed:
            self._closed = True
            self.poll(0.0)
