"""A consumer for a thread that pulls: the sink's side of Kafka.

A group, or the caller's wish for all, gives partitions and nothing else. Where to read from is said
by whoever reads; committed offsets are written for displays of lag and never read. aiokafka runs on
a loop and a thread of its own: it goes on with heartbeats while the reader is busy, and holds at
most ``HELD_BYTES`` and one fetch of each partition.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import threading
import time
from collections import deque
from collections.abc import Collection, Coroutine, Mapping
from concurrent.futures import TimeoutError as CallTimeoutError
from dataclasses import dataclass, field
from typing import Any, TypeVar

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import IllegalStateError, KafkaError

from callmeter.errors import CallmeterError, ConfigError, DataError, UnreachableError
from callmeter.log.kafka_clients import FETCH_BYTES, partitions_of
from callmeter.log.kafka_errors import kafka_errors, translated
from callmeter.log.kafka_settings import KafkaSettings
from callmeter.log.record import LogRecord
from callmeter.schema.topics import BY_NAME

_log = logging.getLogger(__name__)
_T = TypeVar("_T")
# Through Any: the library has no types.
_consumer: Any = AIOKafkaConsumer
_Listener: Any = ConsumerRebalanceListener

HELD_BYTES = 8 * 2**20
_POLL_MS = 200
_CALL_S = 30.0
_REPORT_EVERY_S = 1.0
_ENDS_EVERY_S = 1.0
#: How often to look whether a reader wants something, while none has said from where.
_IDLE_S = 0.2
_STOP_S = 10.0


@dataclass
class _Held:
    """What was fetched of one partition and not yet read."""

    epoch: int
    records: deque[LogRecord] = field(default_factory=deque)
    bytes: int = 0
    next: int | None = None  # what the reader gets next; None: the client is not there yet
    sought: int | None = None  # where the client is to be set, on its own thread
    reached: int = -1  # where the client stands, markers and aborted records passed

    def clear(self, at: int | None, sought: int | None = None) -> None:
        self.records.clear()
        self.bytes = 0
        self.next = at
        self.sought = sought
        self.reached = -1


class KafkaGroupReader:
    """Committed records of one topic, for the partitions the group gives this member.

    With ``whole`` every partition is read without asking the group: who must see the end of all of
    them cannot wait for members that died while joining, whom a group counts for a session more.
    Every method may block for a moment, none for new records but ``wait``; all are called from one
    thread, but ``wake`` from any. ``UnreachableError`` while Kafka is away, ``ConfigError`` if it
    refuses us. Close it, or the group waits out the session.
    """

    shared = True

    def __init__(
        self,
        settings: KafkaSettings,
        topic: str,
        *,
        group: str,
        log_id: str,
        whole: bool = False,
        session_s: float = 15.0,
    ) -> None:
        self.topic = topic
        self.log_id = log_id
        self._settings = settings
        self._full = BY_NAME[topic].full(settings.prefix)
        self._group = f"{settings.prefix}.{group}"
        self._whole = whole
        self._session_ms = int(session_s * 1000)
        self._changed = threading.Condition()
        self._held: dict[int, _Held] = {}
        self._epochs = itertools.count(1)
        self._woken = False
        self._failure: CallmeterError | None = None
        self._reported_s = 0.0
        self._begun: set[int] = set()
        self._ends_at_s = -_ENDS_EVERY_S
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="callmeter-kafka-group", daemon=True
        )
        self._thread.start()
        try:
            self._call(self._start())
        except BaseException:
            self._end_loop()
            raise
        self._pumping = asyncio.run_coroutine_threadsafe(self._pump(), self._loop)

    # For the reading thread

    def assignment(self) -> Mapping[int, int]:
        """Partitions given to this member; the number grows when one comes that was not here."""
        with self._changed:
            return {partition: held.epoch for partition, held in self._held.items()}

    def read(
        self, partition: int, offset: int, *, max_records: int, max_bytes: int
    ) -> list[LogRecord]:
        """Records at or above ``offset`` that have been fetched; none while it is being sought.

        ``DataError`` if the topic ends before ``offset``: it is not the topic it was.
        """
        with self._changed:
            self._raise_failure()
            held = self._held.get(partition)
            if held is None:
                return []
            if held.next != offset:
                # What a fetch that is under way brings is of the place before: nothing is taken
                # until the client has been set.
                if held.sought != offset:
                    held.clear(None, sought=offset)
                    self._loop.call_soon_threadsafe(self._seek, partition, offset)
                return []
            taken: list[LogRecord] = []
            size = 0
            while held.records and len(taken) < max_records and size < max_bytes:
                record = held.records.popleft()
                size += _size(record)
                taken.append(record)
            if taken:
                held.bytes -= size
                held.next = taken[-1].offset + 1
                if taken[0].offset < offset:
                    raise DataError(
                        f"{self._full} partition {partition} gives offset {taken[0].offset} where "
                        f"{offset} was asked: was the topic made anew? (its log needs a new id)"
                    )
            return taken

    def begun(self, partitions: Collection[int]) -> Collection[int]:
        """Those of the partitions that have ever had a record, as of a second ago at most."""
        if partitions and time.monotonic() - self._ends_at_s > _ENDS_EVERY_S:
            tps = [TopicPartition(self._full, partition) for partition in partitions]
            ends = self._call(self._client.end_offsets(tps))
            self._begun |= {tp.partition for tp, end in ends.items() if end}
            self._ends_at_s = time.monotonic()
        return self._begun.intersection(partitions)

    def first_offset(self, partition: int) -> int:
        tp = TopicPartition(self._full, partition)
        return int(self._call(self._client.beginning_offsets([tp]))[tp])

    def end_offset(self, partition: int) -> int:
        """The end of what is committed (the last stable offset)."""
        tp = TopicPartition(self._full, partition)
        return int(self._call(self._client.end_offsets([tp]))[tp])

    def reached(self, partition: int, offset: int, end: int) -> bool:
        """Whether nothing but markers and aborted records lies between ``offset`` and ``end``."""
        with self._changed:
            self._raise_failure()
            held = self._held.get(partition)
            if offset >= end:
                return True
            return (
                held is not None
                and held.next == offset
                and not held.records
                and held.reached >= end
            )

    def wait(self, positions: Mapping[int, int], timeout_s: float) -> None:
        """Returns when there is something to read, the assignment changed, or the time is over."""
        before = self.assignment()

        def something() -> bool:
            held = (self._held.get(partition) for partition in positions)
            epochs = {partition: h.epoch for partition, h in self._held.items()}
            return self._woken or epochs != before or any(h and h.records for h in held)

        with self._changed:
            self._changed.wait_for(something, timeout_s)
            self._woken = False

    def wake(self) -> None:
        with self._changed:
            self._woken = True
            self._changed.notify_all()

    def report(self, positions: Mapping[int, int]) -> None:
        """Commit offsets for displays of lag, once a second at most; a failure is only logged."""
        if time.monotonic() - self._reported_s < _REPORT_EVERY_S:
            return
        self._reported_s = time.monotonic()
        offsets = {TopicPartition(self._full, p): offset for p, offset in positions.items()}
        asyncio.run_coroutine_threadsafe(self._commit(offsets), self._loop)

    def close(self) -> None:
        """Leave the group, in a bounded time. Closing twice is harmless."""
        if not self._thread.is_alive():
            return
        self._pumping.cancel()
        try:
            asyncio.run_coroutine_threadsafe(self._client.stop(), self._loop).result(_STOP_S)
        except (KafkaError, CallTimeoutError, OSError) as exc:
            _log.info("the group was not left cleanly: %r", exc)
        self._end_loop()

    # On the loop's thread

    async def _start(self) -> None:
        self._client = _consumer(
            **self._settings.client_kwargs(),
            group_id=self._group,
            isolation_level="read_committed",
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            max_partition_fetch_bytes=FETCH_BYTES,
            session_timeout_ms=self._session_ms,
            heartbeat_interval_ms=self._session_ms // 5,
            # A store that is away for an hour is waited for; claims keep the data right anyway.
            max_poll_interval_ms=3_600_000,
        )
        if not self._whole:
            self._client.subscribe([self._full], listener=_Assignments(self))
        try:
            await self._client.start()
            if self._whole:
                await self._assign_all()
        except BaseException:
            await self._client.stop()
            raise

    async def _assign_all(self) -> None:
        partitions = await partitions_of(self._client, self._full)
        if not partitions:
            raise ConfigError(f"there is no topic {self._full}: run `callmeter topics apply`")
        self._client.assign([TopicPartition(self._full, partition) for partition in partitions])
        self.assigned(partitions)

    async def _pump(self) -> None:
        """Fetch for the partitions that have room, for ever."""
        while True:
            try:
                await self._fetch_once()
            except IllegalStateError:
                await asyncio.sleep(0.05)  # a rebalance came in between
            except (KafkaError, OSError) as exc:
                with self._changed:
                    self._failure = translated(exc, self._settings)
                    self._changed.notify_all()
                await asyncio.sleep(1.0)

    async def _fetch_once(self) -> None:
        assigned = self._client.assignment()
        with self._changed:
            room = [
                TopicPartition(self._full, partition)
                for partition, held in self._held.items()
                if held.next is not None and held.bytes < HELD_BYTES
            ]
        ready = [tp for tp in room if tp in assigned]
        if not ready:
            with self._changed:
                asked = any(
                    held.next is not None or held.sought is not None for held in self._held.values()
                )
            await asyncio.sleep(0.02 if asked else _IDLE_S)
            return
        batches = await self._client.getmany(*ready, timeout_ms=_POLL_MS)
        with self._changed:
            for tp, messages in batches.items():
                held = self._held.get(tp.partition)
                if held is None or held.next is None:
                    continue
                records = [_record(self.topic, message) for message in messages]
                held.records.extend(records)
                held.bytes += sum(map(_size, records))
            if batches:
                self._changed.notify_all()
                return
        await self._note_positions(ready)

    async def _note_positions(self, ready: list[TopicPartition]) -> None:
        for tp in ready:
            if tp not in self._client.assignment():
                continue
            asked = self._held[tp.partition].next if tp.partition in self._held else None
            at = await self._client.position(tp)
            with self._changed:
                held = self._held.get(tp.partition)
                if held is not None and held.next == asked and at >= (asked or 0):
                    held.reached = at

    def _seek(self, partition: int, offset: int) -> None:
        tp = TopicPartition(self._full, partition)
        with self._changed:
            held = self._held.get(partition)
            if held is None or held.sought != offset:
                return  # another seek is on its way, or the partition is gone
            held.clear(None)
            try:
                self._client.seek(tp, offset)
                self._client.resume(tp)
            except IllegalStateError:  # a rebalance is on: the reader will ask again
                return
            held.clear(offset)

    async def _commit(self, offsets: dict[TopicPartition, int]) -> None:
        try:
            await self._client.commit(offsets)
        except (KafkaError, OSError) as exc:
            _log.debug("offsets for lag displays were not committed: %r", exc)

    def assigned(self, partitions: set[int]) -> None:
        """The group has decided: positions start anew, so each partition is to be sought again."""
        with self._changed:
            for gone in self._held.keys() - partitions:
                del self._held[gone]
            for partition in partitions:
                held = self._held.get(partition)
                if held is None:
                    self._held[partition] = _Held(next(self._epochs))
                else:
                    held.clear(None)
                # Nothing is fetched before the reader has said from where.
                self._client.pause(TopicPartition(self._full, partition))
            self._changed.notify_all()

    # Inside

    def _call(self, work: Coroutine[Any, Any, _T]) -> _T:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        with kafka_errors(self._settings):
            try:
                return future.result(_CALL_S)
            except CallTimeoutError:
                future.cancel()
                raise

    def _raise_failure(self) -> None:
        """Raise what the pump met. What is away may come back, what is refused stays refused."""
        failure = self._failure
        if isinstance(failure, UnreachableError):
            self._failure = None
        if failure is not None:
            raise failure

    def _end_loop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class _Assignments(_Listener):  # type: ignore[misc]
    """aiokafka's listener. Revoked partitions are not waited for: claims fence their writers."""

    def __init__(self, reader: KafkaGroupReader) -> None:
        self._reader = reader

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        """What is assigned anew will be told in a moment."""

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        self._reader.assigned({tp.partition for tp in assigned})


def _record(topic: str, message: Any) -> LogRecord:
    return LogRecord(
        topic,
        message.partition,
        message.offset,
        message.timestamp * 1000,
        message.key,
        message.value,
    )


def _size(record: LogRecord) -> int:
    return len(record.value or b"") + len(record.key or b"")
