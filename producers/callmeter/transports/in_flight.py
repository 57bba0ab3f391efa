"""Envelopes that were taken and not yet reported: bounded, thread-safe, one report each."""

from __future__ import annotations

import threading
import time

from callmeter.transports.protocol import Delivery, Outcome, Report, Sealed

Ticket = int


class InFlight:
    """The books of a transport that works in a thread of its own.

    The shipper's thread calls ``take``, ``wait_report`` and ``wait_empty``; any thread may settle.
    A ticket is settled once, whoever comes first: a late answer to an envelope already given up is
    ignored, so the shipper never hears twice of one ``send``.
    """

    def __init__(self, max_bytes: int, max_envelopes: int) -> None:
        self._max_bytes = max_bytes
        self._max_envelopes = max_envelopes
        self._report: Report | None = None
        self._changed = threading.Condition()
        self._taken: dict[Ticket, Sealed] = {}
        self._bytes = 0
        self._next: Ticket = 0
        self._reported = False

    def open(self, report: Report) -> None:
        """From now on settled envelopes are reported here."""
        self._report = report

    def take(self, envelope: Sealed) -> Ticket | None:
        """A ticket, or None when full. A lone envelope is taken whatever its size."""
        size = len(envelope.data)
        with self._changed:
            if self._taken and (
                len(self._taken) >= self._max_envelopes or self._bytes + size > self._max_bytes
            ):
                return None
            ticket = self._next
            self._next += 1
            self._taken[ticket] = envelope
            self._bytes += size
            return ticket

    def envelope(self, ticket: Ticket) -> Sealed | None:
        """The envelope of a ticket; None once it is settled."""
        with self._changed:
            return self._taken.get(ticket)

    def settle(
        self,
        ticket: Ticket,
        outcome: Outcome,
        *,
        partition: int | None = None,
        offset: int | None = None,
        error: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        """Report one envelope, unless it was reported before."""
        with self._changed:
            envelope = self._taken.pop(ticket, None)
            if envelope is None:
                return
            self._bytes -= len(envelope.data)
        if self._report is not None:
            self._report(Delivery(envelope, outcome, partition, offset, error, retry_after_s))
        with self._changed:
            self._reported = True
            self._changed.notify_all()

    def retry_all(self, error: str, retry_after_s: float | None = None) -> None:
        """Report RETRY for everything in flight, oldest first."""
        with self._changed:
            tickets = list(self._taken)
        for ticket in tickets:
            self.settle(ticket, Outcome.RETRY, error=error, retry_after_s=retry_after_s)

    def wait_report(self, timeout_s: float) -> None:
        """Return once something was reported since the last such wait, or after the time-out."""
        with self._changed:
            self._changed.wait_for(lambda: self._reported, timeout_s)
            self._reported = False

    def wait_empty(self, timeout_s: float) -> bool:
        """Wait until nothing is in flight; False after the time-out."""
        deadline_s = time.monotonic() + timeout_s
        with self._changed:
            while self._taken:
                left_s = deadline_s - time.monotonic()
                if left_s <= 0:
                    return False
                self._changed.wait(left_s)
            return True

    def __len__(self) -> int:
        with self._changed:
            return len(self._taken)
