"""A transport for tests: keeps envelopes, and fails in every way a backend can."""

from __future__ import annotations

from collections import deque
from typing import Any

import orjson

from callmeter.schema.envelope import Header, decode_header, split_lines
from callmeter.transports.protocol import Delivery, Outcome, Report, Sealed


class CaptureTransport:
    """Delivers to a list. Set ``outcome``, ``full`` or ``holding`` to make it misbehave.

    ``delivered`` holds what was acknowledged, in that order; ``sent`` every envelope taken,
    re-sends included. It never sleeps: a test with a manual clock never waits.
    """

    name = "capture"

    def __init__(self) -> None:
        self.delivered: list[Sealed] = []
        self.sent: list[Sealed] = []
        #: What becomes of envelopes from now on.
        self.outcome = Outcome.DELIVERED
        self.retry_after_s: float | None = None
        #: Take nothing.
        self.full = False
        #: Take, and report nothing until this is False again.
        self.holding = False
        self.opened = 0
        self.closed = 0
        self._report: Report | None = None
        self._flying: deque[Sealed] = deque()

    def open(self, report: Report) -> None:
        self.opened += 1
        self._report = report

    def send(self, envelope: Sealed) -> bool:
        if self.full or self.closed:
            return False
        self.sent.append(envelope)
        self._flying.append(envelope)
        return True

    def poll(self, timeout_s: float) -> None:
        while self._flying and not self.holding:
            self._settle(self._flying.popleft(), self.outcome)

    def close(self, timeout_s: float) -> None:
        self.closed += 1
        self.poll(0.0)
        while self._flying:
            self._settle(self._flying.popleft(), Outcome.RETRY)

    def _settle(self, envelope: Sealed, outcome: Outcome) -> None:
        offset = None
        if outcome is Outcome.DELIVERED:
            offset = len(self.delivered)
            self.delivered.append(envelope)
        if self._report is not None:
            error = None if outcome is Outcome.DELIVERED else f"the test said {outcome.value}"
            partition = None if offset is None else 0
            self._report(Delivery(envelope, outcome, partition, offset, error, self.retry_after_s))

    @property
    def headers(self) -> list[Header]:
        """Headers of the delivered envelopes."""
        return [decode_header(split_lines(sealed.data)[0]) for sealed in self.delivered]

    @property
    def events(self) -> list[dict[str, Any]]:
        """Events of the delivered envelopes."""
        return [
            orjson.loads(line) for sealed in self.delivered for line in split_lines(sealed.data)[1:]
        ]
