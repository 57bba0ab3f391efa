"""Stands in for the SDK's shipper: sends until everything is delivered or refused."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable

from callmeter.ids import uuid7
from callmeter.schema.envelope import Header, encode
from callmeter.transports.protocol import Delivery, Outcome, Sealed, Transport


def envelope(seq: int, *, source: str | None = None, project: str = "p", pad: int = 100) -> Sealed:
    """An envelope of one event."""
    source = source or uuid7()
    header = Header(source=source, seq=seq, n=1, sent_us=1_700_000_000_000_000, project=project)
    text = b"x" * pad
    line = b'{"kind":"annotation","ts_us":1700000000000000,"text":"%s"}' % text
    return Sealed(source, seq, 1, encode(header, [line]))


class Shipper:
    """``reports`` holds every report, in order."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        self.reports: deque[Delivery] = deque()
        self._seen = 0
        transport.open(self.reports.append)

    def offer(self, envelopes: Iterable[Sealed], timeout_s: float = 60.0) -> None:
        """Hand over, waiting while the transport is full."""
        deadline_s = time.monotonic() + timeout_s
        for one in envelopes:
            while not self.transport.send(one):
                assert time.monotonic() < deadline_s, "the transport stayed full"
                self.transport.poll(0.05)

    def wait(self, count: int, timeout_s: float = 60.0) -> list[Delivery]:
        """Wait for so many reports in all."""
        deadline_s = time.monotonic() + timeout_s
        while len(self.reports) < count:
            assert time.monotonic() < deadline_s, f"{len(self.reports)} of {count} reports"
            self.transport.poll(0.05)
        return list(self.reports)

    def deliver(self, envelopes: Iterable[Sealed], timeout_s: float = 120.0) -> int:
        """Send, and send again what must be, until all are delivered; how many retries it took."""
        deadline_s = time.monotonic() + timeout_s
        waiting = deque(envelopes)
        open_count, retries, seen = len(waiting), 0, len(self.reports)
        while open_count:
            assert time.monotonic() < deadline_s, f"{open_count} not delivered: {self.reports[-1]}"
            while waiting and self.transport.send(waiting[0]):
                waiting.popleft()
            self.transport.poll(0.05)
            while seen < len(self.reports):
                report = self.reports[seen]
                seen += 1
                assert report.outcome is not Outcome.REFUSED, report.error
                if report.outcome is Outcome.RETRY:
                    retries += 1
                    waiting.append(report.envelope)
                    time.sleep(min(report.retry_after_s or 0.02, 0.1) / len(waiting))
                else:
                    open_count -= 1
        return retries
