"""Between the caller's threads and the shipper's: a bounded queue, and the calls that are open.

Hot path (``hot``): callers append to ``queue`` and compare its length with ``alarm``, no more.
Everything shared is changed by single operations that the interpreter makes atomic (deque.append,
dict.pop); the one lock guards the drop counter and is never held while anything waits.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from callmeter.clock import Clock, SystemClock
from callmeter.sdk.containment import CONTAINMENT
from callmeter.sdk.hot import HotIntake
from callmeter.sdk.weight import FIRST_GUESS, newest_bytes

if TYPE_CHECKING:
    from callmeter.settings import Settings

#: A queue never shrinks below this many events, whatever they weigh.
LEAST_ITEMS = 64


class Wake:
    """Wakes one sleeping thread. Safe from signal handlers, as ``threading.Event`` is not."""

    __slots__ = ("_asleep",)

    def __init__(self) -> None:
        self._asleep = threading.Lock()
        self._asleep.acquire()

    def set(self) -> None:
        with suppress(RuntimeError):  # released twice: it is awake already
            self._asleep.release()

    def wait(self, timeout_s: float) -> bool:
        """True when woken, False after the time-out."""
        return self._asleep.acquire(timeout=max(0.0, timeout_s))


class Intake(HotIntake):
    """What calls and metrics are handed to. One for each client and process."""

    __slots__ = (
        "closed",
        "drop_newest",
        "limit",
        "lock",
        "on_first",
        "overflow",
        "record_inputs",
        "record_outputs",
        "room_bytes",
        "sample_rate",
        "sampled_out",
        "too_late",
        "wake",
        "wake_level",
        "wall",
    )

    def __init__(
        self, settings: Settings, clock: Clock, on_first: Callable[[], None] | None = None
    ) -> None:
        super().__init__()
        self.wall: Callable[[], int] = time.time_ns
        if not isinstance(clock, SystemClock):
            self.mono = lambda: round(clock.monotonic_s() * 1e9)
            self.wall = lambda: clock.now_us() * 1000
        self.anchor = (self.wall(), self.mono())
        self.keeps_all = settings.sample_rate >= 1.0
        self.sample_rate = settings.sample_rate
        self.record_inputs = settings.record_inputs
        self.record_outputs = settings.record_outputs
        self.drop_newest = settings.drop == "newest"
        self.wake = Wake()
        self.lock = threading.RLock()
        self.overflow = 0
        self.too_late = 0
        self.sampled_out = 0
        self.closed = False
        self.on_first = on_first
        self.wake_level = settings.max_batch_events
        self.room_bytes = float(settings.max_queue_bytes)
        self.limit = max(LEAST_ITEMS, settings.max_queue_bytes // FIRST_GUESS)
        #: Queue length at which a caller does more than append. 1 until the shipper's thread runs.
        self.alarm = 1

    def offer(self, item: Any) -> None:
        """Take an event: append, and ring when it is time to."""
        queue = self.queue
        queue.append(item)
        if len(queue) >= self.alarm:
            self.ring()

    def ring(self) -> None:
        """The queue has reached its alarm: start or wake the shipper, and drop what is over.

        Called on the caller's thread, right after its append.
        """
        try:
            if self.on_first is not None:
                start, self.on_first = self.on_first, None
                self.alarm = self._wake_at()
                start()
                if len(self.queue) < self.alarm:
                    return
            heaviest = newest_bytes(self.queue)
            if heaviest:
                self.limit = max(LEAST_ITEMS, min(self.limit, int(self.room_bytes / heaviest)))
            over = len(self.queue) - self.limit
            while over > 0:
                with suppress(IndexError):  # the shipper took it meanwhile: room enough
                    self.queue.pop() if self.drop_newest else self.queue.popleft()
                    with self.lock:
                        self.overflow += 1
                over = len(self.queue) - self.limit
            # Look again when the queue has doubled: a handful of times before it is full.
            self.alarm = max(1, min(self.limit, 2 * len(self.queue)))
            self.wake.set()
        except Exception as exc:  # noqa: BLE001  # a host's call must not fail for our queue's sake
            CONTAINMENT.caught("the queue", exc)

    def wake_now(self) -> None:
        """There is work before the first event: start or wake the shipper."""
        if self.on_first is not None:
            start, self.on_first = self.on_first, None
            self.alarm = self._wake_at()
            start()
        self.wake.set()

    def _wake_at(self) -> int:
        """The shipper wakes for a batch, or well before the queue is full."""
        return max(1, min(self.wake_level, self.limit // 2))

    def keeps(self) -> bool:
        """Whether a trace that begins now is recorded."""
        return self.bits(32) < self.sample_rate * 2**32

    def refuse(self) -> None:
        """An event came after ``close``: a counted no-op, an error under test."""
        with self.lock:
            self.too_late += 1

    def disown(self) -> None:
        """After a fork, in the child: what is queued and open here belongs to the parent."""
        self.lock = threading.RLock()  # another thread of the parent may have held it
        self.queue.clear()
        self.open.clear()

    def rearm(self, room_bytes: float, event_bytes: float) -> None:
        """The shipper is about to drain: how much may wait from now on."""
        self.room_bytes = room_bytes
        self.limit = max(LEAST_ITEMS, int(room_bytes / event_bytes))
        self.alarm = self._wake_at()
        self.anchor = (self.wall(), self.mono())
