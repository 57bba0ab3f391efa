"""The one background thread: from queued events to acknowledged envelopes, in one order.

``step`` spells it out. Everything but the queue is owned by whoever runs ``step``, which is one
thread at a time (``_turn``); callers reach it through the intake and through requests.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections import Counter, deque
from typing import TYPE_CHECKING

import orjson

from callmeter._version import __version__
from callmeter.clock import Clock
from callmeter.ids import uuid7
from callmeter.schema.envelope import MAX_BYTES, MAX_EVENTS, Header, encode
from callmeter.schema.reasons import DropReason
from callmeter.sdk.containment import CONTAINMENT, Complaints
from callmeter.sdk.encode import Encoder, TooLargeError
from callmeter.sdk.intake import Intake, Wake
from callmeter.sdk.outbox import Outbox, Spool
from callmeter.sdk.results import FlushResult, Stats
from callmeter.sdk.weight import Weigher
from callmeter.transports.protocol import Sealed, Transport

if TYPE_CHECKING:
    from callmeter.sdk.call import Call
    from callmeter.settings import Settings

#: Events turned into lines before the transport is looked after again.
DRAIN_SLICE = 2_000
#: How often the transport is polled while something is in flight.
POLL_S = 0.02
#: How long the thread may sleep when nothing happens.
IDLE_S = 0.25
#: A call still open after so long is announced with ``call_begin``, if the flush delay is longer.
BEGIN_AFTER_S = 0.25
OPEN_LONG_S = 30.0
#: Ids of long open calls in one heartbeat; the count covers the others.
MAX_OPEN_LONG = 1_000
HEADER_ROOM = 8 * 1024
#: Share of the memory that sealed envelopes may fill; the rest stays for the queue.
ENVELOPE_SHARE = 0.75


class FlushRequest:
    """Someone waits until everything accepted so far is settled."""

    __slots__ = ("done", "last", "target")

    def __init__(self, *, last: bool = False) -> None:
        self.done = Wake()
        self.last = last
        #: Envelopes below this seq must be settled; None until the shipper has seen the request.
        self.target: int | None = None


class Shipper:
    """Owns source, seq and counters of one client in one process."""

    def __init__(
        self,
        intake: Intake,
        transport: Transport,
        settings: Settings,
        clock: Clock,
        *,
        spool: Spool | None = None,
    ) -> None:
        self._intake = intake
        self._transport = transport
        self._settings = settings
        self._clock = clock
        self._encoder = Encoder(settings)
        self._weigher = Weigher()
        self.source = uuid7(clock.now_us() // 1000)
        self._outbox = Outbox(
            transport,
            self.source,
            monotonic_s=clock.monotonic_s,
            rng=random.Random(os.urandom(8)),
            spool=spool,
            durable=settings.durable,
        )
        self._complaints = Complaints(clock.monotonic_s)
        self._lines: list[bytes] = []
        self._line_bytes = 0
        self._lines_since_s = 0.0
        self._seq = 0
        self._taken = 0  # events taken out of the queue, or made here
        self._numbered = 0  # events in envelopes
        self._dropped: Counter[DropReason] = Counter()
        self._begun: dict[Call, None] = {}
        self._next_beat_s = clock.monotonic_s() + settings.heartbeat_s
        self._requests: deque[FlushRequest] = deque()
        self._turn = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stopping = False
        self._opened = False
        self._sealed_last = False
        self._complained_drops = 0
        self._resize()

    # -- the thread ------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the thread. Called once, by whoever appends the first event."""
        if self._thread is None and not self._stopping:
            self._thread = threading.Thread(target=self._run, name="callmeter", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while not self._stopping:
            try:
                with self._turn:
                    wait_s = self.step()
            except Exception as exc:  # noqa: BLE001  # the thread must outlive any one trouble
                wait_s = IDLE_S
                CONTAINMENT.contained += 1
                self._complaints.warn(f"shipping failed: {type(exc).__name__}: {exc}")
            if not self._stopping:
                self._intake.wake.wait(wait_s)

    def step(self) -> float:
        """One round. Returns how many seconds may pass before the next."""
        if not self._opened:
            self._transport.open(self._reported)
            self._opened = True
        self._outbox.settle()
        self._intake.rearm(self._queue_limit())
        self._announce_open_calls()
        self._beat()
        more = self._drain()
        self._answer_requests()
        self._seal_what_is_due()
        self._outbox.bound(int(self._settings.max_queue_bytes * ENVELOPE_SHARE))
        self._outbox.send()
        self._transport.poll(0.0)
        if self._outbox.settle():
            self._outbox.send()
        self._release_requests()
        self._complain()
        return 0.0 if more else self._pause_s()

    def _pause_s(self) -> float:
        pause_s = IDLE_S
        if self._lines:
            due_s = self._lines_since_s + self._settings.flush_delay_s
            pause_s = min(pause_s, due_s - self._clock.monotonic_s())
        if self._outbox.in_flight():
            pause_s = min(pause_s, POLL_S)
        # What may go and was not taken waits for the transport: nothing but time helps.
        return max(0.0, min(pause_s, self._outbox.wait_s() or POLL_S))

    def _reported(self, delivery: object) -> None:
        self._outbox.report(delivery)  # type: ignore[arg-type]  # Report's own argument
        self._intake.wake.set()

    # -- from the queue to lines -----------------------------------------------------------------

    def _drain(self) -> bool:
        """Turn queued events into lines. True if there is more than one slice of them."""
        queue, line_of = self._intake.queue, self._encoder.line
        if self._settings.drop == "newest" and self._outbox_is_full():
            return False  # what waits keeps its place; new events are refused at the queue
        for _ in range(DRAIN_SLICE):
            try:
                item = queue.popleft()
            except IndexError:
                return False
            self._taken += 1
            try:
                line = line_of(item)
            except TooLargeError:
                self._dropped[DropReason.TOO_LARGE] += 1
            except Exception as exc:  # noqa: BLE001  # any object may hide in an attribute
                self._dropped[DropReason.ENCODE_ERROR] += 1
                self._complaints.warn(f"an event could not be encoded: {type(exc).__name__}: {exc}")
            else:
                self._weigher.saw(item, len(line))
                self._add_line(line)
        return True

    def _add_line(self, line: bytes) -> None:
        if self._line_bytes + len(line) + 1 > MAX_BYTES - HEADER_ROOM:
            self._seal()
        if not self._lines:
            self._lines_since_s = self._clock.monotonic_s()
        self._lines.append(line)
        self._line_bytes += len(line) + 1
        if len(self._lines) >= min(self._settings.max_batch_events, MAX_EVENTS):
            self._seal()

    def _announce_open_calls(self) -> None:
        """``call_begin`` for calls that are open for a while (docs/decisions/0003): always before
        their ``call_end``, which cannot have been in the queue while they were in ``open``."""
        intake = self._intake
        if not intake.open:
            self._begun.clear()
            return
        now_ns = intake.mono()
        after_ns = int(min(self._settings.flush_delay_s, BEGIN_AFTER_S) * 1e9)
        still: dict[Call, None] = {}
        for call in list(intake.open):
            if call in self._begun:
                still[call] = None
            elif getattr(call, "start_ns", now_ns) <= now_ns - after_ns:
                still[call] = None
                self._taken += 1
                try:
                    self._add_line(self._encoder.begin_line(call))
                except Exception as exc:  # noqa: BLE001  # as for every event
                    self._dropped[DropReason.ENCODE_ERROR] += 1
                    self._complaints.warn(f"a call_begin could not be encoded: {exc}")
        self._begun = still

    def _beat(self) -> None:
        """A heartbeat now and then: this source lives, and so many calls are open."""
        every_s, now_s = self._settings.heartbeat_s, self._clock.monotonic_s()
        if not every_s or now_s < self._next_beat_s:
            return
        self._next_beat_s = now_s + every_s
        if not self._seq and not self._intake.open:
            return  # a source that never had an event is not announced
        self._add_heartbeat()

    def _add_heartbeat(self) -> None:
        long_ns = self._intake.mono() - int(OPEN_LONG_S * 1e9)
        calls = [c for c in list(self._intake.open) if getattr(c, "start_ns", long_ns + 1) <= long_ns]
        event = {
            "kind": "heartbeat",
            "ts_us": self._clock.now_us(),
            "open": len(self._intake.open),
            "open_long": [c.id for c in calls[:MAX_OPEN_LONG]],
        }
        self._taken += 1
        self._add_line(orjson.dumps(event))

    # -- from lines to envelopes -----------------------------------------------------------------

    def _seal_what_is_due(self) -> None:
        if self._lines:
            age_s = self._clock.monotonic_s() - self._lines_since_s
            if age_s >= self._settings.flush_delay_s:
                self._seal()

    def _seal(self, *, last: bool = False) -> None:
        """Give the lines a seq. From here on their bytes never change."""
        if not self._lines and not last:
            return
        lines, self._lines, self._line_bytes = self._lines, [], 0
        self._numbered += len(lines)
        unnumbered = self._unnumbered_drops()
        header = Header(
            source=self.source,
            seq=self._seq,
            n=len(lines),
            sent_us=self._clock.now_us(),
            project=self._settings.project,
            environment=self._settings.environment,
            service=self._settings.service,
            sdk=f"callmeter-python/{__version__}",
            # What has a number or never will: events still queued are in a later header.
            accepted=self._numbered + sum(unnumbered.values()),
            dropped={r.value: n for r, n in sorted((unnumbered + self._outbox.dropped).items())},
            last=last,
        )
        self._seq += 1
        self._outbox.add(Sealed(self.source, header.seq, header.n, encode(header, lines)))

    def _unnumbered_drops(self) -> Counter[DropReason]:
        """Drops before an event had a number: at the queue, while encoding, after ``close``."""
        drops = Counter(self._dropped)
        intake = self._intake
        with intake.lock:
            drops[DropReason.QUEUE_FULL] += intake.overflow
            drops[DropReason.CLOSED] += intake.too_late
        return +drops

    # -- memory ----------------------------------------------------------------------------------

    def _queue_limit(self) -> int:
        """How many events may wait, from the bytes that are left and what events weigh."""
        left = self._settings.max_queue_bytes - self._outbox.bytes - self._line_bytes
        return int(left // self._weigher.event_bytes())

    def _outbox_is_full(self) -> bool:
        return self._outbox.bytes >= self._settings.max_queue_bytes * ENVELOPE_SHARE

    def _resize(self) -> None:
        self._intake.limit = max(1, self._queue_limit())

    # -- flush, close, stats ---------------------------------------------------------------------

    def _answer_requests(self) -> None:
        """Someone flushes: drain all that is queued now, seal it, and remember up to where."""
        fresh = [r for r in self._requests if r.target is None]
        if not fresh:
            return
        for _ in range(len(self._intake.queue) // DRAIN_SLICE + 1):
            self._drain()
        last = any(r.last for r in fresh) and not self._sealed_last
        if last and not self._lines:  # an envelope has at least one event
            self._add_heartbeat()
        self._sealed_last = self._sealed_last or last
        self._seal(last=last)
        self._outbox.hurry()
        for request in fresh:
            request.target = self._seq

    def _release_requests(self) -> None:
        for request in list(self._requests):
            if request.target is not None and not self._outbox.unsettled_below(request.target):
                self._requests.remove(request)
                request.done.set()

    def flush(self, timeout_s: float, *, last: bool = False) -> int:
        """Wait until what was accepted is settled. Returns the events that are not, after the time.

        Any thread, signal handlers too: it waits on a lock of its own and holds none.
        """
        if not self._intake.queue and not self._taken and not last:
            return 0  # nothing was ever accepted: do not open a transport for that
        request = FlushRequest(last=last)
        self._requests.append(request)
        deadline = time.monotonic() + timeout_s
        if self._thread is None or not self._thread.is_alive():
            self._flush_here(request, deadline)
        else:
            self._intake.wake.set()
            request.done.wait(timeout_s)
        if request in self._requests:
            self._requests.remove(request)
        if request.target is None:
            return len(self._intake.queue) + len(self._lines) + self._outbox.events
        return self._outbox.unsettled_below(request.target)

    def _flush_here(self, request: FlushRequest, deadline: float) -> None:
        """Without a thread (under test, or where none can start) the caller's runs the steps."""
        while True:
            with self._turn:
                wait_s = self.step()
            left_s = deadline - time.monotonic()
            if request.done.wait(0.0) or left_s <= 0:
                return
            self._intake.wake.wait(min(wait_s, left_s, POLL_S))

    def close(self, timeout_s: float) -> None:
        """Deliver what can be delivered in the time, say goodbye, and count the rest as dropped."""
        deadline = time.monotonic() + timeout_s
        self._intake.closed = True
        if self._taken or self._intake.queue:
            self.flush(timeout_s, last=True)
        self._stopping = True
        self._intake.wake.set()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(max(0.05, deadline - time.monotonic()))
        if not self._turn.acquire(timeout=max(0.05, deadline - time.monotonic())):
            self._complaints.warn("the transport did not let go in time; the rest is lost")
            return
        try:
            if self._opened:
                self._transport.close(max(0.0, deadline - time.monotonic()))
            self._outbox.settle()
            self._intake.open.clear()
            self._outbox.abandon(DropReason.SHUTDOWN)
            self._shut_the_queue()
        finally:
            self._turn.release()
        self._complain(final=True)

    def _shut_the_queue(self) -> None:
        """What is still queued or unsealed now will not travel any more."""
        left = len(self._lines)
        self._lines, self._line_bytes = [], 0
        queue = self._intake.queue
        while queue:
            queue.popleft()
            self._taken += 1
            left += 1
        self._dropped[DropReason.SHUTDOWN] += left

    def refuse(self) -> None:
        """An event came after ``close``."""
        self._intake.refuse()

    def stats(self) -> Stats:
        """Counters now. Exact when nothing else happens meanwhile."""
        intake, outbox = self._intake, self._outbox
        with intake.lock:
            overflow, too_late, sampled_out = intake.overflow, intake.too_late, intake.sampled_out
        queued = len(intake.queue)
        dropped = self._unnumbered_drops() + outbox.dropped
        spooled = outbox.spooled()
        return Stats(
            source=self.source,
            accepted=self._taken + queued + overflow + too_late,
            delivered=outbox.delivered,
            pending=queued + len(self._lines) + outbox.events + spooled,
            queued=queued + len(self._lines),
            spooled=spooled,
            dropped={reason.value: n for reason, n in sorted(dropped.items())},
            envelopes=self._seq,
            retries=outbox.retries,
            bytes=outbox.bytes + self._line_bytes + int(queued * self._weigher.event_bytes()),
            open_calls=len(intake.open),
            sampled_out=sampled_out,
            contained=CONTAINMENT.contained,
            error=outbox.error,
        )

    # -- complaints ------------------------------------------------------------------------------

    def _complain(self, *, final: bool = False) -> None:
        """One line a minute at most about a backend that is away or events that were dropped."""
        dropped = self._unnumbered_drops() + self._outbox.dropped
        total = sum(dropped.values())
        if total > self._complained_drops:
            self._complained_drops = total
            what = ", ".join(f"{n} {reason.value}" for reason, n in sorted(dropped.items()))
            why = f"; last error: {self._outbox.error}" if self._outbox.error else ""
            self._complaints.warn(f"events were dropped: {what}{why}")
        elif self._outbox.away() and not final:
            self._complaints.warn(f"not delivered yet, trying again: {self._outbox.error}")
