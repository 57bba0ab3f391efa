"""The one background thread: from queued events to acknowledged envelopes, in one order.

``step`` spells the order out. Everything but the queue belongs to whoever runs ``step``, one thread
at a time (``_turn``); other threads reach it through the intake and through flush requests.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from callmeter.clock import Clock
from callmeter.ids import uuid7
from callmeter.schema.reasons import DropReason
from callmeter.sdk import lifecycle
from callmeter.sdk.containment import CONTAINMENT, Complaints
from callmeter.sdk.encode import Encoder, TooLargeError
from callmeter.sdk.flush_request import FlushRequest
from callmeter.sdk.intake import Intake
from callmeter.sdk.open_calls import OpenCalls
from callmeter.sdk.outbox import Outbox
from callmeter.sdk.results import Stats
from callmeter.sdk.sealer import JOURNAL_SHARE, Sealer
from callmeter.sdk.spool import open_spool
from callmeter.sdk.weight import Weigher
from callmeter.transports.protocol import Delivery, Transport

if TYPE_CHECKING:
    from callmeter.settings import Settings

#: Events turned into lines before the transport is looked after again.
DRAIN_SLICE = 2_000
#: One event in so many is weighed.
WEIGH_EVERY = 4
#: How often the transport is polled while something is in flight.
POLL_S = 0.02
#: How long the thread may sleep when nothing happens.
IDLE_S = 0.25
#: Share of the memory that sealed envelopes may fill; the rest stays for the queue.
ENVELOPE_SHARE = 0.75


class Shipper:
    """Owns source, seq and counters of one client in one process."""

    def __init__(
        self,
        intake: Intake,
        transport: Transport,
        settings: Settings,
        clock: Clock,
    ) -> None:
        self._intake = intake
        self._transport = transport
        self._settings = settings
        self._clock = clock
        self._encoder = Encoder(settings)
        self._weigher = Weigher()
        self._envelope_bytes = int(settings.max_queue_bytes * ENVELOPE_SHARE)
        self.source = uuid7(clock.now_us() // 1000)
        self._idle_s = IDLE_S
        if settings.durable:
            self._idle_s = min(IDLE_S, settings.sync_interval_s / JOURNAL_SHARE)
        self._spool = open_spool(settings, self.source, clock.now_us)
        self._outbox = Outbox(
            transport,
            self.source,
            monotonic_s=clock.monotonic_s,
            rng=random.Random(os.urandom(8)),
            max_flying_bytes=settings.max_queue_bytes // 2,
            spool=self._spool,
            durable=settings.durable,
        )
        self._sealer = Sealer(
            self.source,
            settings,
            clock,
            unnumbered=self._unnumbered_drops,
            given_up=lambda: self._outbox.dropped,
            out=self._outbox.add,
        )
        self._complaints = Complaints(clock.monotonic_s)
        self._dropped: Counter[DropReason] = Counter()
        self._open_calls = OpenCalls(intake, clock, settings.flush_delay_s)
        self._next_beat_s = clock.monotonic_s() + settings.heartbeat_s
        self._requests: deque[FlushRequest] = deque()
        self._turn = threading.Lock()
        self._thread: threading.Thread | None = None
        self._opened = False
        self._stopping = False
        self._told_drops = 0
        self._told_gone = 0

    def start(self) -> None:
        """Start the thread. Called once, by whoever appends the first event."""
        if self._thread is None and not self._stopping:
            lifecycle.at_process_end()
            self._thread = threading.Thread(target=self._run, name="callmeter", daemon=True)
            self._thread.start()

    def recover(self) -> None:
        """Take over what dead processes left in the spool, and begin at once if there is any."""
        if self._spool is not None:
            self._spool.adopt()
            if self._spool.backlog():
                self._intake.wake_now()

    def tell_deliveries(self, to: Callable[[Delivery], None]) -> None:
        """Say of each delivered envelope where the log has it; on the shipper's thread."""
        self._outbox.on_delivered = to

    def forked(self) -> None:
        """In a forked child: this shipper and what it keeps on disk are the parent's."""
        if self._spool is not None:
            self._spool.forked()

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
        self._intake.rearm(self._room_bytes(), self._weigher.event_bytes())
        self._announce_open_calls()
        self._beat()
        more = self._drain(DRAIN_SLICE) >= DRAIN_SLICE
        self._take_requests()
        if self._sealer.due_s() <= 0:
            self._sealer.seal()
        self._exchange()
        if self._settings.drop == "oldest":
            self._outbox.bound(self._envelope_bytes)
        self._release_requests()
        self._complain()
        return 0.0 if more else self._pause_s()

    def _exchange(self) -> None:
        """Send and hear back, as long as one makes room for the other."""
        while True:
            self._outbox.send()
            self._transport.poll(0.0)
            if not self._outbox.settle():
                return

    def _pause_s(self) -> float:
        pause_s = min(self._idle_s, max(0.0, self._sealer.due_s()))
        if self._intake.open:
            pause_s = min(pause_s, self._settings.flush_delay_s or POLL_S)
        if self._outbox.in_flight():
            pause_s = min(pause_s, POLL_S)
        # What may go and was not taken waits for the transport: nothing but time helps.
        return min(pause_s, self._outbox.wait_s() or POLL_S)

    def _reported(self, delivery: Delivery) -> None:
        self._outbox.report(delivery)
        self._intake.wake.set()

    # -- from the queue to lines -----------------------------------------------------------------

    def _drain(self, most: int) -> int:
        """Turn up to ``most`` queued events into lines; how many there were."""
        if self._outbox.bytes >= self._envelope_bytes and self._settings.drop == "newest":
            return 0  # what waits keeps its place; new events are refused at the queue
        queue, line_of = self._intake.queue, self._encoder.line
        saw, add = self._weigher.saw, self._sealer.add
        for count in range(most):
            try:
                item = queue.popleft()
            except IndexError:
                return count
            try:
                line = line_of(item)
            except TooLargeError:
                self._dropped[DropReason.TOO_LARGE] += 1
            except Exception as exc:  # noqa: BLE001  # any object may hide in an attribute
                self._not_encoded(exc)
            else:
                if not count % WEIGH_EVERY:
                    saw(item, len(line))
                add(line)
        return most

    def _not_encoded(self, exc: Exception) -> None:
        self._dropped[DropReason.ENCODE_ERROR] += 1
        self._complaints.warn(f"an event could not be encoded: {type(exc).__name__}: {exc}")

    def _announce_open_calls(self) -> None:
        """``call_begin`` for calls that are open for a while (docs/decisions/0003).

        It always comes before the call's end: a call that is in ``open`` now is not in the queue
        yet, and the queue is drained after this.
        """
        for call in self._open_calls.unannounced():
            try:
                self._sealer.add(self._encoder.begin_line(call))
            except Exception as exc:  # noqa: BLE001  # as for every event
                self._not_encoded(exc)

    def _beat(self) -> None:
        """A heartbeat now and then, once there is something to say."""
        every_s, now_s = self._settings.heartbeat_s, self._clock.monotonic_s()
        if every_s and now_s >= self._next_beat_s:
            self._next_beat_s = now_s + every_s
            if self._sealer.seq or self._intake.open:
                self._add_heartbeat()

    def _add_heartbeat(self) -> None:
        self._sealer.add(self._open_calls.heartbeat())

    # -- counters and memory ---------------------------------------------------------------------

    def _unnumbered_drops(self) -> Counter[DropReason]:
        """Drops before an event had a number: at the queue, while encoding, after ``close``."""
        drops = Counter(self._dropped)
        with self._intake.lock:
            drops[DropReason.QUEUE_FULL] += self._intake.overflow
            drops[DropReason.CLOSED] += self._intake.too_late
        return +drops

    def _room_bytes(self) -> int:
        """Memory that is left for the queue."""
        return self._settings.max_queue_bytes - self._outbox.bytes - self._sealer.bytes

    def stats(self) -> Stats:
        """Counters now. Exact when nothing else happens meanwhile."""
        intake, outbox = self._intake, self._outbox
        queued = len(intake.queue)
        unnumbered = self._unnumbered_drops()
        dropped = unnumbered + outbox.dropped
        pending = queued + len(self._sealer) + outbox.pending()
        recovered, recovered_dropped = outbox.recovered()
        return Stats(
            source=self.source,
            accepted=outbox.delivered + pending + dropped.total(),
            delivered=outbox.delivered,
            pending=pending,
            queued=queued + len(self._sealer),
            spooled=outbox.spooled(),
            dropped={reason.value: n for reason, n in sorted(dropped.items())},
            envelopes=self._sealer.seq,
            retries=outbox.retries,
            bytes=outbox.bytes + self._sealer.bytes + int(queued * self._weigher.event_bytes()),
            open_calls=len(intake.open),
            sampled_out=intake.sampled_out,
            contained=CONTAINMENT.contained,
            recovered=recovered,
            recovered_dropped={r.value: n for r, n in sorted(recovered_dropped.items())},
            error=outbox.error,
        )

    def _complain(self) -> None:
        """One line a minute at most: a backend that is away, events that were dropped."""
        dropped = self._unnumbered_drops() + self._outbox.dropped
        if dropped.total() > self._told_drops:
            self._told_drops = dropped.total()
            what = ", ".join(f"{n} {reason.value}" for reason, n in sorted(dropped.items()))
            why = f"; last error: {self._outbox.error}" if self._outbox.error else ""
            self._complaints.warn(f"events were dropped: {what}{why}")
        elif (gone := self._outbox.recovered()[1]).total() > self._told_gone:
            self._told_gone = gone.total()
            what = ", ".join(f"{n} {reason.value}" for reason, n in sorted(gone.items()))
            self._complaints.warn(f"events that an earlier process left were dropped: {what}")
        elif self._spool is not None and self._spool.error:
            self._complaints.warn(f"the spool keeps nothing for now: {self._spool.error}")
            self._spool.error = None
        elif self._outbox.away():
            self._complaints.warn(f"not delivered yet, trying again: {self._outbox.error}")

    # -- flush and close -------------------------------------------------------------------------

    def flush(self, timeout_s: float, *, last: bool = False) -> int:
        """Wait until what was accepted is settled. Returns the events that are not, after the time.

        Any thread may call it, signal handlers too: it waits on a lock of its own and holds none.
        """
        if not self._opened and not self._intake.queue and not self._outbox.backlog():
            return 0  # nothing was ever accepted: no transport is opened for that
        request = FlushRequest(last=last)
        self._requests.append(request)
        if self._thread is None or not self._thread.is_alive():
            self._flush_here(request, time.monotonic() + timeout_s)
        else:
            self._intake.wake.set()
            request.done.wait(timeout_s)
        if request in self._requests:
            self._requests.remove(request)
        if request.target is None:
            return len(self._intake.queue) + len(self._sealer) + self._outbox.pending()
        return self._outbox.unsettled_below(request.target)

    def _flush_here(self, request: FlushRequest, deadline_s: float) -> None:
        """Without a thread (under test, or where none can start) the caller's runs the steps."""
        while True:
            # A signal's handler may flush while the thread it interrupted is amid a step here: it
            # waits no longer than it was told to.
            if not self._turn.acquire(timeout=max(0.0, deadline_s - time.monotonic())):
                return
            try:
                wait_s = self.step()
            finally:
                self._turn.release()
            left_s = deadline_s - time.monotonic()
            if request.done.wait(0.0) or left_s <= 0:
                return
            self._intake.wake.wait(min(wait_s, left_s, POLL_S))

    def _take_requests(self) -> None:
        """Someone flushes: seal all that is queued now, and remember up to where."""
        fresh = [request for request in self._requests if request.target is None]
        if not fresh:
            return
        waiting = len(self._intake.queue)
        if self._drain(waiting) < waiting and self._intake.queue:
            return  # held back by drop="newest": next round
        last = any(request.last for request in fresh) and not self._sealer.said_goodbye
        if last and not len(self._sealer):
            self._add_heartbeat()  # an envelope has at least one event
        self._sealer.seal(last=last)
        self._outbox.hurry()
        for request in fresh:
            request.target = self._sealer.seq

    def _release_requests(self) -> None:
        for request in list(self._requests):
            if request.target is not None and not self._outbox.unsettled_below(request.target):
                request.done.set()

    def refuse(self) -> None:
        """An event came after ``close``."""
        self._intake.refuse()

    def close(self, timeout_s: float) -> None:
        """Deliver what can be delivered in the time, say goodbye, count the rest as dropped."""
        deadline_s = time.monotonic() + timeout_s
        self._intake.closed = True
        insisted: BaseException | None = None
        for patience_s in (timeout_s, lifecycle.INSIST_S, 0.0):
            deadline_s = min(deadline_s, time.monotonic() + patience_s)
            try:
                self.flush(max(0.0, deadline_s - time.monotonic()), last=True)
                break
            except lifecycle.INSISTING as exc:
                insisted = exc
        self._end(deadline_s)
        if insisted is not None:
            raise insisted

    def _end(self, deadline_s: float) -> None:
        """The thread ends, then the transport; what is left goes to the spool or is counted."""
        self._stopping = True
        self._intake.wake.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(max(0.05, deadline_s - time.monotonic()))
        if not self._turn.acquire(timeout=max(0.05, deadline_s - time.monotonic())):
            self._complaints.warn("the transport did not let go in time; what is pending is lost")
            return
        try:
            if self._opened:
                self._transport.close(max(0.0, deadline_s - time.monotonic()))
            self._outbox.settle()
            self._intake.open.clear()
            if self._spool is not None:
                self._drain(len(self._intake.queue))
                self._sealer.seal()
            self._outbox.abandon(DropReason.SHUTDOWN)
            self._dropped[DropReason.SHUTDOWN] += self._sealer.discard() + self._discard_queue()
            self._complain()
        finally:
            self._turn.release()

    def _discard_queue(self) -> int:
        count = 0
        while self._intake.queue:
            self._intake.queue.popleft()
            count += 1
        return count
