"""Sends envelopes to Kafka: an idempotent aiokafka producer on an event loop in its own thread.

One *session* is one producer and one ``asyncio.Runner``. Whatever goes wrong ends the session: what
is in flight is reported as RETRY and leaving the runner cancels all that the producer still has to
do. An aiokafka producer that is idempotent retries for ever by itself; this is how it is bounded.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.codec import has_lz4, has_zstd
from aiokafka.errors import (
    KafkaConnectionError,
    KafkaError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
    RecordTooLargeError,
)

from callmeter.errors import MissingExtraError
from callmeter.log.kafka_batch import RecordBatch, batch_codec
from callmeter.log.kafka_settings import KafkaSettings
from callmeter.log.partitioner import partition_for
from callmeter.schema.topics import EVENTS
from callmeter.transports.in_flight import InFlight, Ticket
from callmeter.transports.kafka_loop import KafkaLoop
from callmeter.transports.options import TransportOptions
from callmeter.transports.protocol import Outcome, Report, Sealed
from callmeter.transports.quiet_kafka import hush_this_thread, last_complaint, unhush_this_thread

#: Envelopes of so many bytes go into one batch: under the 1 MB that a broker takes by default.
BATCH_BYTES = 512 * 1024
#: With compression, if what they become is not more than that.
PACKED_BATCH_BYTES = 2 * 2**20
#: A record's key, lengths and offsets, and the batch around it.
_RECORD_ROOM = 1024
#: Larger than any envelope; the broker has its own, usually lower, limit.
MAX_REQUEST_BYTES = 4 * 2**20
_MAX_IN_FLIGHT = 4096
_FIRST_BACKOFF_S, _MAX_BACKOFF_S = 0.25, 5.0
_TOO_LARGE = (MessageSizeTooLargeError, RecordListTooLargeError, RecordTooLargeError)
_JOIN_S = 0.5
#: How long each step of leaving a session may take.
_POLITE_S = 0.05


class SessionError(Exception):
    """The broker is away, the topic is missing, a deadline passed. One line for people."""


@dataclass(slots=True)
class _Session:
    """One producer's life. ``broken`` is set to the error that ends it. ``alone`` says that every
    envelope travels in a batch of its own. ``lanes`` holds what waits for its partition.
    """

    producer: Any  # aiokafka has no types
    partitions: int
    alone: bool
    loop: asyncio.AbstractEventLoop
    wake: asyncio.Event
    broken: asyncio.Future[None]
    lanes: dict[int, deque[Ticket]] = field(default_factory=dict)
    shipping: dict[int, asyncio.Task[None]] = field(default_factory=dict)
    places: dict[str, int] = field(default_factory=dict)

    def partition_of(self, source: str) -> int:
        found = self.places.get(source)
        if found is None:
            found = self.places[source] = partition_for(source.encode(), self.partitions)
        return found

    def fail(self, error: str | BaseException) -> None:
        if not self.broken.done():
            self.broken.set_exception(SessionError(error) if isinstance(error, str) else error)
            self.broken.exception()  # seen: a session that is over already has nobody to tell


class KafkaTransport:
    """Key = source, partition = murmur2(key) mod N, acks=all, one envelope a record."""

    name = "kafka"

    def __init__(self, settings: KafkaSettings, options: TransportOptions) -> None:
        self._display = settings.display
        self._client_kwargs = settings.client_kwargs()
        self.topic = EVENTS.full(settings.prefix)
        self._codec = batch_codec(_compression(options.compression))
        self._timeout_s = options.timeout_s
        self._batch_bytes = BATCH_BYTES if self._codec[1] is None else PACKED_BATCH_BYTES
        self._in_flight = InFlight(options.max_in_flight_bytes, _MAX_IN_FLIGHT)
        self._queue: deque[Ticket] = deque()
        self._work = threading.Condition()
        self._session: _Session | None = None
        self._closing = False
        self._abandoned = False
        self._down_until_s = 0.0
        self._down_error = ""
        self._backoff_s = _FIRST_BACKOFF_S
        self._thread: threading.Thread | None = None
        self._pid = os.getpid()

    def open(self, report: Report) -> None:
        self._pid = os.getpid()
        self._in_flight.open(report)
        self._thread = threading.Thread(target=self._run, name="callmeter-kafka", daemon=True)
        self._thread.start()

    def send(self, envelope: Sealed) -> bool:
        if self._closing:
            return False
        ticket = self._in_flight.take(envelope)
        if ticket is None:
            return False
        with self._work:
            self._queue.append(ticket)
            self._notify()
        return True

    def poll(self, timeout_s: float) -> None:
        self._in_flight.wait_report(timeout_s)

    def close(self, timeout_s: float) -> None:
        """Flush within the time; the rest is reported as RETRY and the session cut off."""
        already, self._closing = self._closing, True
        if already or self._pid != os.getpid():
            return  # after a fork thread, loop and sockets are the parent's
        with self._work:
            self._notify()
        if not self._in_flight.wait_empty(timeout_s):
            self._abandoned = True
            self._in_flight.retry_all(f"closed before {self._display} acknowledged")
            with self._work:
                self._notify()
        if self._thread is not None:
            self._thread.join(_JOIN_S)

    def _notify(self) -> None:
        """Wake whoever waits for work; ``_work`` is held."""
        self._work.notify_all()
        session = self._session
        if session is not None:
            session.loop.call_soon_threadsafe(session.wake.set)
            if self._abandoned:
                session.loop.call_soon_threadsafe(session.fail, "closed")

    # The thread: sessions, and pauses between them.

    def _run(self) -> None:
        hush_this_thread()
        try:
            while not self._done():
                pause_s = self._down_until_s - time.monotonic()
                if pause_s > 0:
                    self._give_back(pause_s)
                    continue
                try:
                    with asyncio.Runner(loop_factory=KafkaLoop) as runner:
                        runner.run(self._run_session())
                except SessionError as exc:
                    self._down(str(exc))
                except Exception as exc:  # noqa: BLE001  # a bug must not leave envelopes unreported
                    self._down(f"the Kafka transport failed: {exc!r}")
        finally:
            unhush_this_thread()

    def _done(self) -> bool:
        return self._closing and (self._abandoned or len(self._in_flight) == 0)

    def _down(self, error: str) -> None:
        self._down_error = error
        self._down_until_s = time.monotonic() + self._backoff_s
        self._in_flight.retry_all(error, self._backoff_s)
        self._backoff_s = min(self._backoff_s * 2, _MAX_BACKOFF_S)

    def _give_back(self, pause_s: float) -> None:
        """While the broker is away: whatever is handed over goes back at once."""
        with self._work:
            self._work.wait_for(lambda: self._queue or self._closing, pause_s)
            self._queue.clear()
        left_s = max(self._down_until_s - time.monotonic(), 0.0)
        self._in_flight.retry_all(self._down_error, left_s)

    async def _run_session(self) -> None:
        """Start a producer and feed it until closed; ``SessionError`` when anything fails."""
        producer: Any = AIOKafkaProducer(  # type: ignore[no-untyped-call]
            **self._client_kwargs,
            client_id="callmeter-sdk",
            acks="all",
            enable_idempotence=True,
            request_timeout_ms=max(int(self._timeout_s * 1000), 100),
            retry_backoff_ms=50,
        )
        loop = asyncio.get_running_loop()
        try:
            partitions = await self._start(producer)
            alone = self._batch_bytes == 1
            session = _Session(
                producer, partitions, alone, loop, asyncio.Event(), loop.create_future()
            )
            session.wake.set()  # what was handed over before
            with self._work:
                self._session = session
            feeder = asyncio.create_task(self._feed(session))
            await asyncio.wait({feeder, session.broken}, return_when=asyncio.FIRST_COMPLETED)
            if session.broken.done():
                session.broken.result()
            feeder.result()
        except (KafkaError, OSError, TimeoutError) as exc:
            complaint = last_complaint() if isinstance(exc, KafkaConnectionError) else ""
            raise SessionError(f"{self._display}: {complaint or _line(exc)}") from exc
        finally:
            with self._work:
                self._session = None
            await self._discard(producer)

    async def _discard(self, producer: Any) -> None:
        """Leave nothing behind: no task, no socket. ``stop`` alone would wait for batches that can
        no longer be sent, and closing politely for a broker that does not read.
        """
        stop = asyncio.ensure_future(producer.stop())
        await asyncio.wait({stop}, timeout=_POLITE_S)
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        if rest:
            await asyncio.wait(rest, timeout=_POLITE_S)
        close = asyncio.ensure_future(producer.client.close())
        await asyncio.wait({close}, timeout=_POLITE_S)
        loop = asyncio.get_running_loop()
        if isinstance(loop, KafkaLoop):
            await loop.abort_connections()
        await asyncio.wait({close}, timeout=_POLITE_S)
        for task in (stop, close):
            if task.done() and not task.cancelled():
                task.exception()  # seen: the session is over, and its error told

    async def _start(self, producer: Any) -> int:
        """Connect and learn N. All topics' metadata is asked for: asking for one by name would make
        a broker with automatic topics create it, with a wrong N.
        """
        async with asyncio.timeout(self._timeout_s):
            await producer.start()
            cluster = await producer.client.fetch_all_metadata()
        found = cluster.partitions_for_topic(self.topic)
        if not found:
            raise SessionError(
                f"{self._display} has no topic {self.topic}: run `callmeter topics apply`"
            )
        return len(found)

    async def _feed(self, session: _Session) -> None:
        """Hand the queue to the partitions' lanes, in order, until closed and empty."""
        while not self._done():
            await session.wake.wait()
            session.wake.clear()
            while self._queue and not session.broken.done():
                ticket = self._queue.popleft()
                envelope = self._in_flight.envelope(ticket)
                if envelope is not None:  # else it was given back while it waited
                    partition = session.partition_of(envelope.source)
                    session.lanes.setdefault(partition, deque()).append(ticket)
            for partition in session.lanes.keys() - session.shipping.keys():
                task = asyncio.create_task(self._ship(session, partition))
                session.shipping[partition] = task
                task.add_done_callback(partial(_ended, session))

    async def _ship(self, session: _Session, partition: int) -> None:
        """Empty one partition's lane: one batch at a time, so that what comes while one is under
        way goes together.
        """
        lane = session.lanes[partition]
        while lane and not session.broken.done():
            group = self._group(lane)
            if not group:
                continue
            records = [(one.source.encode(), one.data) for _, one in group]
            batch = RecordBatch(self._codec, records, time.time_ns() // 1_000_000)
            if batch.size() > BATCH_BYTES and len(group) > 1 and self._batch_bytes > BATCH_BYTES:
                # These do not shrink as others do: in smaller batches from now on.
                self._batch_bytes //= 2
                lane.extendleft(ticket for ticket, _ in reversed(group))
                continue
            deadline = session.loop.call_later(self._timeout_s, self._overdue, session)
            sent = await session.producer.send_batch(batch, self.topic, partition=partition)
            await asyncio.wait({sent})
            deadline.cancel()
            self._settle(session, [ticket for ticket, _ in group], sent)
        del session.lanes[partition], session.shipping[partition]
        if self._closing:
            session.wake.set()

    def _group(self, lane: deque[Ticket]) -> list[tuple[Ticket, Sealed]]:
        """The next envelopes of a lane that fit into one batch; its first always does."""
        group: list[tuple[Ticket, Sealed]] = []
        size = 0
        while lane:
            ticket = lane[0]
            envelope = self._in_flight.envelope(ticket)
            if envelope is not None:
                needs = len(envelope.data) + _RECORD_ROOM
                if needs > MAX_REQUEST_BYTES:
                    error = f"{len(envelope.data)} bytes are more than any request may have"
                    self._in_flight.settle(ticket, Outcome.REFUSED, error=error)
                elif group and size + needs > self._batch_bytes:
                    break
                else:
                    group.append((ticket, envelope))
                    size += needs
            lane.popleft()
        return group

    def _settle(self, session: _Session, tickets: list[Ticket], sent: asyncio.Future[Any]) -> None:
        """The broker's word on one batch."""
        exc = sent.exception()
        if exc is None:
            self._backoff_s = _FIRST_BACKOFF_S
            place = sent.result()
            for nth, ticket in enumerate(tickets):
                # -1: the broker knows the batch as already written and no longer where.
                offset = place.offset + nth if place.offset >= 0 else None
                self._in_flight.settle(
                    ticket, Outcome.DELIVERED, partition=place.partition, offset=offset
                )
        else:
            if isinstance(exc, _TOO_LARGE):
                self._too_large(session, tickets, exc)
            # After a batch that failed for good the producer's sequence numbers have a hole, and
            # every later one would be refused: begin anew.
            session.fail(f"{self._display}: {_line(exc)}")

    def _too_large(self, session: _Session, tickets: list[Ticket], exc: BaseException) -> None:
        """The broker refused a batch. Alone in it the envelope is to blame; else the batch was, and
        from the next session on every envelope travels in its own (a batch takes its first record
        whatever its size).
        """
        if session.alone:
            error = f"{self._display}: {_line(exc)}"
            self._in_flight.settle(tickets[0], Outcome.REFUSED, error=error)
        else:
            self._batch_bytes = 1

    def _overdue(self, session: _Session) -> None:
        session.fail(f"{self._display}: no acknowledgement within {self._timeout_s:g} s")


def _ended(session: _Session, task: asyncio.Task[None]) -> None:
    """A lane's task: what it could not bear ends the session."""
    if not task.cancelled() and (exc := task.exception()) is not None:
        session.fail(exc)


def _compression(choice: str) -> str | None:
    if choice == "none":
        return None
    if choice == "auto":
        return "zstd" if has_zstd() else "gzip"
    if (choice == "zstd" and not has_zstd()) or (choice == "lz4" and not has_lz4()):
        raise MissingExtraError(f"{choice} compression", "kafka")
    return choice


def _line(exc: BaseException) -> str:
    if isinstance(exc, TimeoutError):
        return "no answer in time"
    return (str(exc) or type(exc).__name__).splitlines()[0][:300]
