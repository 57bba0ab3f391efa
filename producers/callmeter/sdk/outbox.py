"""Sealed envelopes that nobody has acknowledged yet: their order, their retries and their memory.

One thread, the shipper's, owns it. An envelope is in exactly one place:

    add ──► waiting ──send──► flying ──DELIVERED──► gone, counted as delivered
              ▲                 │  └───REFUSED────► gone, counted as dropped: refused
              └─────RETRY───────┘                   (in ``waiting`` the oldest seq is always first)

With a spool, RETRY puts it on disk instead (and ``add`` does so at once if ``durable``), from where
it flies again. What the disk does not take stays in memory. When memory is used up the oldest
waiting envelopes go to the spool if there is one; else they are dropped whole and counted, and
their missing seq shows at the meter as a gap.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter, deque
from collections.abc import Callable
from enum import Enum
from typing import NamedTuple, Protocol

from callmeter.schema.reasons import DropReason
from callmeter.transports.protocol import Delivery, Outcome, Sealed, Transport

FIRST_BACKOFF_S = 0.1
MAX_BACKOFF_S = 30.0
#: How often directories of processes that died meanwhile are looked for.
ADOPT_EVERY_S = 30.0
#: Envelopes of dead processes that are sent at a time: new events wait to be written to disk.
ADOPTED_AT_ONCE = 64


class Spool(Protocol):
    """Where envelopes wait on disk (``callmeter.sdk.spool``). Called on the shipper's thread only,
    but for the counts; errors are its own.

    ``put`` keeps an envelope, or says why it could not. ``take`` hands out this source's oldest
    envelope that is not handed out, or None; ``take_adopted`` likewise one that a dead process
    left, which ``adopt`` looks for. ``done`` forgets one (delivered, or given up for a reason);
    ``back`` takes it in again. ``events_below`` counts this source's events in envelopes below a
    seq; ``backlog`` tells of any source's. ``losses`` are what this source has lost here since the
    last call, ``recovered`` and ``recovered_dropped`` what became of dead sources' events.
    """

    recovered: int
    recovered_dropped: Counter[DropReason]

    def put(self, envelope: Sealed) -> DropReason | None: ...

    def adopt(self) -> None: ...

    def take(self) -> Sealed | None: ...

    def take_adopted(self) -> Sealed | None: ...

    def done(self, envelope: Sealed, dropped: DropReason | None = None) -> None: ...

    def back(self, envelope: Sealed) -> None: ...

    def events(self) -> int: ...

    def events_below(self, seq: int) -> int: ...

    def backlog(self) -> bool: ...

    def losses(self) -> list[tuple[DropReason, int]]: ...

    def close(self) -> None: ...


class _Lane(Enum):
    """What one attempt to send came to."""

    SENT = 1
    EMPTY = 2
    FULL = 3


class _Flight(NamedTuple):
    envelope: Sealed
    spooled: bool


class Outbox:
    """See above. ``on_delivered`` hears of partition and offset (the budget guard needs them)."""

    def __init__(
        self,
        transport: Transport,
        source: str,
        *,
        monotonic_s: Callable[[], float],
        rng: random.Random,
        max_flying_bytes: int,
        spool: Spool | None = None,
        durable: bool = False,
        on_delivered: Callable[[Delivery], None] | None = None,
    ) -> None:
        self._transport = transport
        self._source = source
        self._monotonic_s = monotonic_s
        self._rng = rng
        self._max_flying_bytes = max_flying_bytes
        self._flying_bytes = 0
        self._spool = spool
        self._durable = durable
        self.on_delivered = on_delivered
        self._waiting: list[tuple[int, Sealed]] = []
        self._flying: dict[tuple[str, int], _Flight] = {}
        self._reports: deque[Delivery] = deque()
        self._failures = 0
        self._not_before_s = float("-inf")
        self._next_adopt_s = float("-inf")
        #: Memory of what waits and flies.
        self.bytes = 0
        self.delivered = 0
        self.retries = 0
        self.dropped: Counter[DropReason] = Counter()
        self.error: str | None = None

    def add(self, envelope: Sealed) -> None:
        """A new envelope; its seq is above all others."""
        spool = self._spool if self._durable else None
        if spool is None or spool.put(envelope) is not None:
            self._wait(envelope)
        self._count_losses()

    def report(self, delivery: Delivery) -> None:
        """The transport's word on one envelope. Any thread; handled by ``settle``."""
        self._reports.append(delivery)

    def settle(self) -> bool:
        """Handle what was reported; true if anything was."""
        any_report = False
        while self._reports:
            any_report = True
            delivery = self._reports.popleft()
            key = (delivery.envelope.source, delivery.envelope.seq)
            flight = self._flying.pop(key, None)
            if flight is not None:
                self._flying_bytes -= len(flight.envelope.data)
                self.bytes -= len(flight.envelope.data)
                self._settle(flight, delivery)
        self._count_losses()
        return any_report

    def send(self) -> None:
        """Hand over what may go now, until the transport is full.

        What a dead process left goes side by side with our own, so that neither waits for the
        other. Of our own what is on disk is older and goes first.
        """
        now_s = self._monotonic_s()
        lanes = [self._send_own]
        if self._spool is not None:
            lanes.append(self._send_adopted)
            if now_s >= self._next_adopt_s:
                self._next_adopt_s = now_s + ADOPT_EVERY_S
                self._spool.adopt()
        if now_s < self._not_before_s:
            return
        for _ in range(ADOPTED_AT_ONCE):
            for lane in list(lanes):
                outcome = lane()
                if outcome is _Lane.FULL:
                    return
                if outcome is _Lane.EMPTY:
                    lanes.remove(lane)
            if not lanes:
                return
        while self._send_own() is _Lane.SENT:
            pass

    def bound(self, max_bytes: int) -> None:
        """Keep at most ``max_bytes`` in memory: the oldest waiting go to the spool, or are
        dropped.
        """
        while self.bytes > max_bytes and self._waiting:
            self._give_up(self._unwait(), DropReason.QUEUE_FULL)

    def away(self) -> bool:
        """Whether the backend failed last and has not been well since."""
        return self._failures > 0

    def wait_s(self) -> float:
        """Seconds until something may be sent again; 0 if now, infinite if nothing waits."""
        if not self._waiting and not self.backlog():
            return float("inf")
        return max(0.0, self._not_before_s - self._monotonic_s())

    def in_flight(self) -> bool:
        return bool(self._flying)

    def backlog(self) -> bool:
        """Whether the spool has anything to send, of this source or a dead one."""
        return self._spool is not None and self._spool.backlog()

    def unsettled_below(self, seq: int) -> int:
        """Events of this source in envelopes below ``seq`` that are neither delivered nor
        dropped.
        """
        own = sum(e.n for at, e in list(self._waiting) if at < seq)
        own += sum(
            flight.envelope.n
            for (_, at), flight in list(self._flying.items())
            if at < seq and not flight.spooled
        )
        return own + (0 if self._spool is None else self._spool.events_below(seq))

    def pending(self) -> int:
        """Events sealed and neither delivered nor dropped, on disk too."""
        return self.unsettled_below(2**64)

    def spooled(self) -> int:
        """Events of this source that wait on disk."""
        return 0 if self._spool is None else self._spool.events()

    def recovered(self) -> tuple[int, Counter[DropReason]]:
        """Events of dead processes that this one delivered, and dropped."""
        spool = self._spool
        return (0, Counter()) if spool is None else (spool.recovered, spool.recovered_dropped)

    def hurry(self) -> None:
        """Try again now, whatever the backoff says."""
        self._not_before_s = float("-inf")

    def abandon(self, reason: DropReason) -> None:
        """The end: what is left goes to the spool, or is dropped for ``reason``."""
        flying, self._flying = self._flying, {}
        self._flying_bytes = 0
        for flight in flying.values():
            self.bytes -= len(flight.envelope.data)
            if flight.spooled and self._spool is not None:
                self._spool.back(flight.envelope)
            else:
                self._wait(flight.envelope)
        while self._waiting:
            self._give_up(self._unwait(), reason)
        self._count_losses()
        if self._spool is not None:
            self._spool.close()

    # -- one envelope ----------------------------------------------------------------------------

    def _settle(self, flight: _Flight, delivery: Delivery) -> None:
        envelope, spool = flight.envelope, self._spool if flight.spooled else None
        if delivery.outcome is Outcome.RETRY:
            self._failed(delivery)
            if spool is not None:
                spool.back(envelope)
            elif self._spool is None or self._spool.put(envelope) is not None:
                self._wait(envelope)
            return
        ours = envelope.source == self._source
        if delivery.outcome is Outcome.DELIVERED:
            self.delivered += envelope.n if ours else 0
            if spool is not None:
                spool.done(envelope)
            self._well(delivery)
            return
        self.error = delivery.error or "refused"
        if spool is not None:
            spool.done(envelope, DropReason.REFUSED)
        else:
            self.dropped[DropReason.REFUSED] += envelope.n

    def _send_own(self) -> _Lane:
        spooled = None if self._spool is None else self._spool.take()
        if spooled is not None:
            return self._send_spooled(spooled)
        if not self._waiting:
            return _Lane.EMPTY
        envelope = self._waiting[0][1]
        if not self._has_room(envelope) or not self._transport.send(envelope):
            return _Lane.FULL
        heapq.heappop(self._waiting)
        self.bytes -= len(envelope.data)
        self._fly(envelope, spooled=False)
        return _Lane.SENT

    def _send_adopted(self) -> _Lane:
        envelope = None if self._spool is None else self._spool.take_adopted()
        return _Lane.EMPTY if envelope is None else self._send_spooled(envelope)

    def _send_spooled(self, envelope: Sealed) -> _Lane:
        if not self._has_room(envelope) or not self._transport.send(envelope):
            if self._spool is not None:
                self._spool.back(envelope)
            return _Lane.FULL
        self._fly(envelope, spooled=True)
        return _Lane.SENT

    def _has_room(self, envelope: Sealed) -> bool:
        """What flies cannot be dropped, so it must not fill the memory."""
        room = self._max_flying_bytes - self._flying_bytes
        return not self._flying or len(envelope.data) <= room

    def _fly(self, envelope: Sealed, *, spooled: bool) -> None:
        self._flying[envelope.source, envelope.seq] = _Flight(envelope, spooled)
        self._flying_bytes += len(envelope.data)
        self.bytes += len(envelope.data)

    def _wait(self, envelope: Sealed) -> None:
        heapq.heappush(self._waiting, (envelope.seq, envelope))
        self.bytes += len(envelope.data)

    def _unwait(self) -> Sealed:
        envelope = heapq.heappop(self._waiting)[1]
        self.bytes -= len(envelope.data)
        return envelope

    def _give_up(self, envelope: Sealed, reason: DropReason) -> None:
        """To the disk; what it does not take is dropped for its reason, not ours."""
        why = reason if self._spool is None else self._spool.put(envelope)
        if why is not None:
            self.dropped[why] += envelope.n

    def _count_losses(self) -> None:
        if self._spool is not None:
            for reason, events in self._spool.losses():
                self.dropped[reason] += events

    def _failed(self, delivery: Delivery) -> None:
        """Wait before the next try: exponential with full jitter, or as long as the server asks.

        Envelopes fail in groups when a backend goes away; only the first of a group counts.
        """
        self.retries += 1
        self.error = delivery.error or "not delivered"
        now_s = self._monotonic_s()
        if now_s >= self._not_before_s:
            self._failures += 1
            ceiling_s = min(MAX_BACKOFF_S, FIRST_BACKOFF_S * 2.0 ** min(self._failures - 1, 20))
            self._not_before_s = now_s + ceiling_s * (0.5 + self._rng.random() / 2)
        if delivery.retry_after_s is not None:
            asked_s = min(max(0.0, delivery.retry_after_s), 10 * MAX_BACKOFF_S)
            self._not_before_s = max(self._not_before_s, now_s + asked_s)

    def _well(self, delivery: Delivery) -> None:
        if self._failures:
            self._failures = 0
            self._not_before_s = float("-inf")
            self.error = None
        if self.on_delivered is not None:
            self.on_delivered(delivery)
