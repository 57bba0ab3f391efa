"""Sends envelopes through a transport until the log has every one of them."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from callmeter.clock import Clock
from callmeter.errors import UnreachableError
from callmeter.transports.protocol import Delivery, Outcome, Sealed, Transport

#: Envelopes handed to the transport and not yet reported.
WINDOW = 128
_POLL_S = 0.05
_MAX_BACKOFF_S = 5.0
_CLOSE_S = 5.0


@dataclass(slots=True)
class Sent:
    """What came of it. ``refused`` holds the reports of envelopes the backend will never take."""

    envelopes: int = 0
    events: int = 0
    refused: list[Delivery] = field(default_factory=list)


def send_all(
    transport: Transport,
    envelopes: Iterable[Sealed],
    *,
    clock: Clock,
    patience_s: float = 60.0,
    on_delivered: Callable[[Sealed], None] = lambda _: None,
) -> Sent:
    """Deliver every envelope, in order as far as nothing fails; re-send what must be re-sent.

    Raises ``UnreachableError`` when nothing was delivered for ``patience_s`` seconds. What was
    delivered until then stays delivered: replaying again goes on from there.
    """
    sender = _Sender(transport, envelopes, clock, patience_s, on_delivered)
    transport.open(sender.reports.append)
    try:
        return sender.run()
    finally:
        transport.close(_CLOSE_S)


class _Sender:
    def __init__(
        self,
        transport: Transport,
        envelopes: Iterable[Sealed],
        clock: Clock,
        patience_s: float,
        on_delivered: Callable[[Sealed], None],
    ) -> None:
        self.reports: deque[Delivery] = deque()
        self._transport = transport
        self._source = iter(envelopes)
        self._clock = clock
        self._patience_s = patience_s
        self._on_delivered = on_delivered
        self._next: Sealed | None = next(self._source, None)
        self._again: list[tuple[float, Sealed]] = []  # due time and envelope
        self._in_flight = 0
        self._failures = 0
        self._last_error = ""
        self._progress_s = clock.monotonic_s()
        self._sent = Sent()

    def run(self) -> Sent:
        while self._next is not None or self._again or self._in_flight:
            self._hand_over()
            if not self.reports:
                self._transport.poll(_POLL_S)
            while self.reports:
                self._take(self.reports.popleft())
            self._check_patience()
        return self._sent

    def _hand_over(self) -> None:
        """Give the transport what is due, oldest first, until it or the window is full."""
        now_s = self._clock.monotonic_s()
        self._again.sort(key=lambda item: item[1].seq)
        for item in [item for item in self._again if item[0] <= now_s]:
            if not self._send(item[1]):
                return
            self._again.remove(item)
        while self._next is not None and self._send(self._next):
            self._next = next(self._source, None)

    def _send(self, envelope: Sealed) -> bool:
        if self._in_flight >= WINDOW or not self._transport.send(envelope):
            return False
        self._in_flight += 1
        return True

    def _take(self, report: Delivery) -> None:
        self._in_flight -= 1
        if report.outcome is Outcome.RETRY:
            self._failures += 1
            self._last_error = report.error or self._last_error
            backoff = min(_MAX_BACKOFF_S, 0.1 * 2 ** min(self._failures, 6))
            delay = report.retry_after_s or backoff * random.uniform(0.5, 1.0)
            self._again.append((self._clock.monotonic_s() + delay, report.envelope))
            return
        self._failures = 0
        self._progress_s = self._clock.monotonic_s()
        if report.outcome is Outcome.REFUSED:
            self._sent.refused.append(report)
            return
        self._sent.envelopes += 1
        self._sent.events += report.envelope.n
        self._on_delivered(report.envelope)

    def _check_patience(self) -> None:
        if self._clock.monotonic_s() - self._progress_s > self._patience_s:
            raise UnreachableError(
                f"nothing delivered for {self._patience_s:.0f} s over {self._transport.name}"
                + (f": {self._last_error}" if self._last_error else "")
            )
