"""One lane of the Monitor's sender: a bounded queue, one thread, one kept-alive connection."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from callmeter.errors import ConfigError
from callmeter.schema.reasons import DropReason
from callmeter.transports.http_connection import HttpConnection, NoAnswerError
from callmeter.transports.url import http_endpoint

logger = logging.getLogger("callmeter.compat.synalinks")

PATH = "/trace"
#: A lane without work ends its thread and closes its connection after so long.
IDLE_S = 5.0
#: One log line in so many seconds for each endpoint; the next says how many were held back.
LOG_EVERY_S = 60.0
#: The socket's own time-out comes first; this ends a send whose answer only trickles in.
_GRACE_S = 0.1


@dataclass
class Troubles:
    """Error lines of one endpoint, at most one a minute."""

    next_s: float = float("-inf")
    held_back: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def tell(self, text: str) -> None:
        """Log the text, or count it."""
        now_s = time.monotonic()
        with self.lock:
            if now_s < self.next_s:
                self.held_back += 1
                return
            more, self.held_back, self.next_s = self.held_back, 0, now_s + LOG_EVERY_S
        logger.error("%s%s", text, f" ({more} more since the last such line)" if more else "")


@dataclass
class LaneCounts:
    """``submitted == sent + failed + sum(dropped.values()) + pending``; ``bytes`` are pending."""

    submitted: int = 0
    sent: int = 0
    failed: int = 0
    pending: int = 0
    bytes: int = 0
    dropped: dict[str, int] = field(default_factory=dict)


class Lane:
    """Sends bodies in the order they came. ``submit`` never blocks and never raises."""

    def __init__(
        self, base: str, headers: Mapping[str, str], timeout_s: float, max_bytes: int,
        troubles: Troubles,
    ) -> None:  # fmt: skip
        self._base = base
        self._headers = {"Content-Type": "application/json", **headers}
        self._timeout_s = timeout_s
        self._max_bytes = max_bytes
        self._troubles = troubles
        self._counts = LaneCounts()
        self._start_over()

    def _start_over(self) -> None:
        """Nothing queued, no thread: at the beginning, and in a forked child."""
        self._changed = threading.Condition()
        self._queue: deque[bytes] = deque()
        self._thread: threading.Thread | None = None
        self._closing = False

    def submit(self, body: bytes) -> None:
        """Queue a body. Over the bound the oldest goes, counted as ``queue_full``."""
        with self._changed:
            counts = self._counts
            counts.submitted += 1
            if self._closing:
                self._drop(DropReason.CLOSED)
                return
            self._queue.append(body)
            counts.pending += 1
            counts.bytes += len(body)
            while counts.bytes > self._max_bytes and self._queue:
                lost = self._queue.popleft()
                counts.pending -= 1
                counts.bytes -= len(lost)
                self._drop(DropReason.QUEUE_FULL)
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="callmeter-monitor", daemon=True
                )
                self._thread.start()
            self._changed.notify_all()

    def counts(self) -> LaneCounts:
        """A copy of the counters."""
        with self._changed:
            c = self._counts
            return LaneCounts(c.submitted, c.sent, c.failed, c.pending, c.bytes, dict(c.dropped))

    def wait(self, deadline_s: float) -> bool:
        """Until nothing is pending, or the deadline (monotonic) passes."""
        with self._changed:
            return self._changed.wait_for(
                lambda: self._counts.pending == 0, timeout=max(0.0, deadline_s - time.monotonic())
            )

    def close(self, deadline_s: float) -> None:
        """Send what is queued within the time; the rest is counted as ``shutdown``."""
        with self._changed:
            self._closing = True
            thread = self._thread
            self._changed.notify_all()
        if thread is not None:
            thread.join(max(0.0, deadline_s - time.monotonic()))
        with self._changed:
            while self._queue:
                self._counts.bytes -= len(self._queue.popleft())
                self._counts.pending -= 1
                self._drop(DropReason.SHUTDOWN)

    def after_fork(self) -> None:
        """In a forked child: what is queued is the parent's to send."""
        self._counts = LaneCounts()
        self._start_over()

    def _drop(self, reason: DropReason) -> None:
        dropped = self._counts.dropped
        dropped[reason.value] = dropped.get(reason.value, 0) + 1

    def _run(self) -> None:
        connection: HttpConnection | None = None
        try:
            while (body := self._next()) is not None:
                trouble = None
                try:
                    connection = connection or self._connection()
                    trouble = self._post(connection, body)
                except ConfigError as exc:
                    trouble = str(exc)
                except Exception as exc:  # noqa: BLE001  # counted and logged; the host goes on
                    trouble = f"{type(exc).__name__}: {exc}"
                if trouble is not None:
                    self._troubles.tell(f"a trace was not sent to {self._base}{PATH}: {trouble}")
                self._settle(body, sent=trouble is None)
        finally:
            if connection is not None:
                connection.close()

    def _next(self) -> bytes | None:
        """The oldest body; None ends the thread: closing, or idle for long."""
        with self._changed:
            if not self._closing:
                self._changed.wait_for(lambda: self._queue or self._closing, timeout=IDLE_S)
            if self._queue:
                return self._queue.popleft()
            self._thread = None
            return None

    def _settle(self, body: bytes, *, sent: bool) -> None:
        with self._changed:
            self._counts.pending -= 1
            self._counts.bytes -= len(body)
            if sent:
                self._counts.sent += 1
            else:
                self._counts.failed += 1
            self._changed.notify_all()

    def _connection(self) -> HttpConnection:
        return HttpConnection(
            http_endpoint(self._base), timeout_s=self._timeout_s, ca_file=None, environ=os.environ
        )

    def _post(self, connection: HttpConnection, body: bytes) -> str | None:
        """None once the endpoint has taken it, else what went wrong."""
        alarm = threading.Timer(self._timeout_s + _GRACE_S, connection.abort)
        alarm.daemon = True
        alarm.start()
        try:
            answer = connection.post(PATH, body, self._headers)
        except NoAnswerError as exc:
            return str(exc)
        finally:
            alarm.cancel()
        return None if answer.status < 400 else f"HTTP {answer.status}"
