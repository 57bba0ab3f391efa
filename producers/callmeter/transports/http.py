"""Sends envelopes to a collector over HTTP, with nothing but the standard library.

The POSTs are made by a thread of the transport's own: a collector that hangs must not hold up the
shipper, which has a spool to write and a shutdown to finish in time.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Sequence

from callmeter._version import __version__
from callmeter.transports.compression import MIN_BYTES, body_codec
from callmeter.transports.http_answers import judge
from callmeter.transports.http_connection import Answer, HttpConnection, NoAnswerError
from callmeter.transports.in_flight import InFlight, Ticket
from callmeter.transports.options import TransportOptions
from callmeter.transports.protocol import Report, Sealed
from callmeter.transports.url import HttpEndpoint

PATH = "/v1/envelopes"
#: One POST: well under the collector's 8 MiB, large enough that round trips do not matter.
MAX_POST_BYTES = 2 * 2**20
MAX_POST_ENVELOPES = 128
#: How long ``close`` waits for the thread itself once its envelopes are settled.
_JOIN_S = 0.2


class HttpTransport:
    """POSTs to ``/v1/envelopes``. Answers are matched by (source, seq); see ``http_answers``."""

    name = "http"

    def __init__(self, endpoint: HttpEndpoint, options: TransportOptions) -> None:
        self._codec = body_codec(options.compression, loopback=endpoint.loopback)
        self._connection = HttpConnection(
            endpoint,
            timeout_s=options.timeout_s,
            ca_file=options.ca_file,
            environ=options.environ,
        )
        self._headers = {
            "Content-Type": "application/x-ndjson",
            "User-Agent": f"callmeter/{__version__}",
        }
        if options.api_key:
            self._headers["Authorization"] = f"Bearer {options.api_key}"
        self._in_flight = InFlight(options.max_in_flight_bytes, 4 * MAX_POST_ENVELOPES)
        self._queue: deque[Ticket] = deque()
        self._work = threading.Condition()
        self._closing = False
        self._thread: threading.Thread | None = None
        self._pid = os.getpid()

    def open(self, report: Report) -> None:
        self._pid = os.getpid()
        self._in_flight.open(report)
        self._thread = threading.Thread(target=self._run, name="callmeter-http", daemon=True)
        self._thread.start()

    def send(self, envelope: Sealed) -> bool:
        if self._closing:
            return False
        ticket = self._in_flight.take(envelope)
        if ticket is None:
            return False
        with self._work:
            self._queue.append(ticket)
            self._work.notify()
        return True

    def poll(self, timeout_s: float) -> None:
        self._in_flight.wait_report(timeout_s)

    def close(self, timeout_s: float) -> None:
        """What is not answered in time is reported as RETRY, and its POST is cut off."""
        already, self._closing = self._closing, True
        if already or self._pid != os.getpid():
            return  # after a fork the thread and its socket are the parent's
        with self._work:
            self._work.notify()
        if not self._in_flight.wait_empty(timeout_s):
            self._connection.abort()
            self._in_flight.retry_all("closed before the collector answered")
        if self._thread is not None:
            self._thread.join(_JOIN_S)

    def _run(self) -> None:
        try:
            while batch := self._next_batch():
                try:
                    self._deliver(batch)
                except Exception as exc:  # noqa: BLE001  # a bug must not leave envelopes unreported
                    self._halt(f"the HTTP transport failed: {exc!r}", None)
        finally:
            self._connection.close()

    def _next_batch(self) -> dict[tuple[str, int], Ticket]:
        """What waits, up to the limits of one POST; empty only when closing and all is done.

        Keyed by (source, seq): an envelope that is in hand twice goes once a POST.
        """
        batch: dict[tuple[str, int], Ticket] = {}
        size = 0
        with self._work:
            while not batch:
                self._work.wait_for(lambda: self._queue or self._closing)
                if not self._queue:
                    return batch
                while self._queue and len(batch) < MAX_POST_ENVELOPES:
                    envelope = self._in_flight.envelope(self._queue[0])
                    if envelope is not None:  # else it was given up while it waited
                        size += len(envelope.data)
                        key = (envelope.source, envelope.seq)
                        if batch and (size > MAX_POST_BYTES or key in batch):
                            break
                        batch[key] = self._queue[0]
                    self._queue.popleft()
        return batch

    def _deliver(self, tickets: dict[tuple[str, int], Ticket]) -> None:
        found = [self._in_flight.envelope(ticket) for ticket in tickets.values()]
        posts: deque[Sequence[Sealed]] = deque([[e for e in found if e is not None]])
        while posts:
            batch = posts.popleft()
            if not batch:
                continue
            try:
                judgement = judge(batch, self._post(batch))
            except NoAnswerError as exc:
                self._halt(str(exc), None)
                return
            for r in judgement.reports:
                self._in_flight.settle(
                    tickets[r.envelope.source, r.envelope.seq],
                    r.outcome,
                    partition=r.partition,
                    offset=r.offset,
                    error=r.error,
                )
            if judgement.weaker_codec:
                if self._codec.encoding is None:
                    self._halt("HTTP 415: the collector does not take plain bodies", None)
                    return
                self._codec = self._codec.weaker()
            if judgement.halt is not None:
                self._halt(judgement.halt, judgement.retry_after_s)
                return
            posts.extendleft(reversed(judgement.again))

    def _post(self, batch: Sequence[Sealed]) -> Answer:
        body = b"".join(envelope.data for envelope in batch)
        headers = self._headers
        if self._codec.encoding is not None and len(body) >= MIN_BYTES:
            body = self._codec.compress(body)
            headers = {**headers, "Content-Encoding": self._codec.encoding}
        return self._connection.post(PATH, body, headers)

    def _halt(self, error: str, retry_after_s: float | None) -> None:
        """The collector is away: everything in hand goes back, so that the shipper can spool it."""
        self._in_flight.retry_all(error, retry_after_s)
