"""Sealed envelopes that nobody has acknowledged yet: their order, their retries and their memory.

One thread, the shipper's, owns it. An envelope is in exactly one place:

    add ──► waiting ──send──► flying ──DELIVERED──► gone, counted as delivered
              ▲                 │  └───REFUSED────► gone, counted as dropped: refused
              └─────RETRY───────┘                   (in ``waiting`` the oldest seq is always first)

When memory is used up the oldest waiting envelopes go to the spool if there is one; else they are
dropped whole and counted, and their missing seq shows at the meter as a gap.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter, deque
from collections.abc import Callable
from typing import Protocol

from callmeter.schema.reasons import DropReason
from callmeter.transports.protocol import Delivery, Outcome, Sealed, Transport

FIRST_BACKOFF_S = 0.1
MAX_BACKOFF_S = 30.0


class Spool(Protocol):
    """Where envelopes wait on disk. Called on the shipper's thread only; errors are its own.

    ``put`` keeps an envelope and returns what had to go for it, as (reason, events): an envelope
    that could not be kept is among them. ``take`` hands out the oldest envelope that is not handed
    out, or None; ``done`` forgets one (delivered or refused for good); ``back`` takes it in again.
    ``events`` counts events kept that belong to this source. ``sync`` makes everything durable.
    """

    def put(self, envelope: Sealed) -> list[tuple[DropReason, int]]: ...

    def take(self) -> Sealed | None: ...

    def done(self, envelope: Sealed) -> None: ...

    def back(self, envelope: Sealed) -> None: ...

    def events(self) -> int: ...

    def sync(self) -> None: ...

    def close(self) -> None: ...


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
        self._on_delivered = on_delivered
        self._waiting: list[tuple[int, Sealed]] = []
        self._flying: dict[int, Sealed] = {}
        self._from_spool: dict[tuple[str, int], Sealed] = {}
        self._reports: deque[Delivery] = deque()
        self._failures = 0
        self._not_before_s = float("-inf")
        self.bytes = 0
        self.events = 0
        self.delivered = 0
        self.retries = 0
        self.dropped: Counter[DropReason] = Counter()
        self.error: str | None = None

    def add(self, envelope: Sealed) -> None:
        """A new envelope; its seq is above all others."""
        if self._durable and self._spool is not None:
            self._put(envelope)
            return
        heapq.heappush(self._waiting, (envelope.seq, envelope))
        self.bytes += len(envelope.data)
        self.events += envelope.n

    def report(self, delivery: Delivery) -> None:
        """The transport's word on one envelope. Any thread; handled by ``settle``."""
        self._reports.append(delivery)

    def settle(self) -> bool:
        """Handle what was reported; true if anything was."""
        any_report = False
        while self._reports:
            any_report = True
            delivery = self._reports.popleft()
            if (delivery.envelope.source, delivery.envelope.seq) in self._from_spool:
                self._settle_spooled(delivery)
            elif (envelope := self._flying.pop(delivery.envelope.seq, None)) is not None:
                self._flying_bytes -= len(envelope.data)
                self._settle_own(delivery)
        return any_report

    def send(self) -> None:
        """Hand over what may go now, oldest first, until the transport is full."""
        if self._monotonic_s() < self._not_before_s:
            return
        if self._spool is not None and not self._send_spooled(self._spool):
            return
        while self._waiting:
            seq, envelope = self._waiting[0]
            size = len(envelope.data)
            if self._flying and self._flying_bytes + size > self._max_flying_bytes:
                return  # what flies cannot be dropped, so it must not fill the memory
            if not self._transport.send(envelope):
                return
            heapq.heappop(self._waiting)
            self._flying[seq] = envelope
            self._flying_bytes += size

    def bound(self, max_bytes: int) -> None:
        """Keep at most ``max_bytes`` in memory: the oldest waiting go to the spool, or are
        dropped.
        """
        while self.bytes > max_bytes and self._waiting:
            self._give_up(heapq.heappop(self._waiting)[1], DropReason.QUEUE_FULL)

    def away(self) -> bool:
        """Whether the backend failed last and has not been well since."""
        return self._failures > 0

    def wait_s(self) -> float:
        """Seconds until something may be sent again; 0 if now, infinite if nothing waits."""
        if not self._waiting and (self._spool is None or self._spool.events() == 0):
            return float("inf")
        return max(0.0, self._not_before_s - self._monotonic_s())

    def in_flight(self) -> bool:
        return bool(self._flying or self._from_spool)

    def unsettled_below(self, seq: int) -> int:
        """Events in envelopes below ``seq`` that are neither delivered nor dropped."""
        own = sum(e.n for s, e in list(self._waiting) if s < seq)
        own += sum(e.n for s, e in list(self._flying.items()) if s < seq)
        return own + self.spooled()

    def pending(self) -> int:
        """Events sealed and neither delivered nor dropped, on disk too."""
        return self.events + self.spooled()

    def spooled(self) -> int:
        """Events of this source that wait on disk."""
        return 0 if self._spool is None else self._spool.events()

    def hurry(self) -> None:
        """Try again now, whatever the backoff says."""
        self._not_before_s = float("-inf")

    def abandon(self, reason: DropReason) -> None:
        """The end: what is left goes to the spool, or is dropped for ``reason``."""
        for envelope in list(self._flying.values()):
            heapq.heappush(self._waiting, (envelope.seq, envelope))
        self._flying.clear()
        self._flying_bytes = 0
        while self._waiting:
            self._give_up(heapq.heappop(self._waiting)[1], reason)
        if self._spool is not None:
            self._spool.close()

    def _settle_own(self, delivery: Delivery) -> None:
        envelope = delivery.envelope
        if delivery.outcome is Outcome.RETRY:
            self._failed(delivery)
            if self._spool is not None:
                self._forget(envelope)
                self._put(envelope)
            else:
                heapq.heappush(self._waiting, (envelope.seq, envelope))
            return
        self._forget(envelope)
        if delivery.outcome is Outcome.DELIVERED:
            self.delivered += envelope.n
            self._well(delivery)
        else:
            self.dropped[DropReason.REFUSED] += envelope.n
            self.error = delivery.error or "refused"

    def _settle_spooled(self, delivery: Delivery) -> None:
        envelope = self._from_spool.pop((delivery.envelope.source, delivery.envelope.seq))
        assert self._spool is not None  # noqa: S101  # it came from there
        if delivery.outcome is Outcome.RETRY:
            self._spool.back(envelope)
            self._failed(delivery)
            return
        self._spool.done(envelope)
        ours = envelope.source == self._source
        if delivery.outcome is Outcome.DELIVERED:
            self.delivered += envelope.n if ours else 0
            self._well(delivery)
        else:
            self.dropped[DropReason.REFUSED] += envelope.n if ours else 0
            self.error = delivery.error or "refused"

    def _send_spooled(self, spool: Spool) -> bool:
        """Spooled envelopes are older than those in memory and go first. False if full."""
        while (envelope := spool.take()) is not None:
            self._from_spool[envelope.source, envelope.seq] = envelope
            if not self._transport.send(envelope):
                del self._from_spool[envelope.source, envelope.seq]
                spool.back(envelope)
                return False
        return True

    def _put(self, envelope: Sealed) -> None:
        assert self._spool is not None  # noqa: S101  # callers have looked
        for reason, events in self._spool.put(envelope):
            self.dropped[reason] += events

    def _give_up(self, envelope: Sealed, reason: DropReason) -> None:
        self._forget(envelope)
        if self._spool is not None:
            self._put(envelope)
        else:
            self.dropped[reason] += envelope.n

    def _forget(self, envelope: Sealed) -> None:
        self.bytes -= len(envelope.data)
        self.events -= envelope.n

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
        if self._on_delivered is not None:
            self._on_delivered(delivery)
