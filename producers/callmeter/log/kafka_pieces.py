"""Reads a topic on Kafka piece by piece, from any offsets: for who keeps his place elsewhere."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from aiokafka import TopicPartition

from callmeter.errors import ConfigError
from callmeter.log.kafka_clients import make_consumer, partitions_of
from callmeter.log.kafka_errors import kafka_errors
from callmeter.log.kafka_settings import KafkaSettings
from callmeter.log.record import LogRecord, Piece
from callmeter.schema.topics import BY_NAME

_T = TypeVar("_T")
_POLL_MS = 200
#: What could not be read by then is left to the next piece.
_READ_S = 5.0


class KafkaPieces:
    """Committed records of one topic, one reader after the other; on one event loop.

    Connects when it has to and again after an error: ``UnreachableError``, ``ConfigError``. Nothing
    is fetched but while a piece is read.
    """

    def __init__(self, settings: KafkaSettings, topic: str) -> None:
        self._settings = settings
        self._topic = topic
        self._full = BY_NAME[topic].full(settings.prefix)
        self._lock = asyncio.Lock()
        self._consumer: Any = None
        self._all: dict[int, Any] = {}

    async def firsts(self) -> Mapping[int, int]:
        """The offset of the oldest record that is left, by partition."""

        async def ask() -> Mapping[int, int]:
            return _numbers(await self._consumer.beginning_offsets(list(self._all.values())))

        return await self._with_consumer(ask)

    async def ends(self) -> Mapping[int, int]:
        """Where what is committed ends, by partition."""
        return await self._with_consumer(self._ends)

    async def at(self, time_us: int) -> Mapping[int, int]:
        """The first offset of that time or later by the records' times, else the end."""

        async def ask() -> Mapping[int, int]:
            ends = dict(await self._ends())  # first: what comes meanwhile is later
            wanted = dict.fromkeys(self._all.values(), max(0, time_us // 1000))
            found = await self._consumer.offsets_for_times(wanted)
            for tp, at in found.items():
                if at is not None:  # it may be of a transaction that is not committed yet
                    ends[tp.partition] = min(ends[tp.partition], int(at.offset))
            return ends

        return await self._with_consumer(ask)

    async def read(self, begin: Mapping[int, int], most: int) -> Piece:
        """Up to ``most`` records from these offsets on, to the end as it is now."""

        async def fetch() -> Piece:
            ends = await self._ends()
            wanted = [tp for p, tp in self._all.items() if begin.get(p, 0) < ends[p]]
            for tp in wanted:
                self._consumer.seek(tp, begin.get(tp.partition, 0))
            self._consumer.resume(*wanted)
            try:
                return await self._fetch(wanted, begin, ends, most)
            finally:
                self._consumer.pause(*wanted)

        return await self._with_consumer(fetch)

    async def close(self) -> None:
        """Lets go of the connection; closing twice is harmless."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await consumer.stop()

    # Under the lock

    async def _fetch(
        self, wanted: list[Any], begin: Mapping[int, int], ends: Mapping[int, int], most: int
    ) -> Piece:
        at = {partition: begin.get(partition, 0) for partition in self._all}
        records: list[LogRecord] = []
        deadline_s = time.monotonic() + _READ_S
        # Markers and aborted records lie between records: the client's position passes them.
        while len(records) < most and any(at[tp.partition] < ends[tp.partition] for tp in wanted):
            left = most - len(records)
            batches = await self._consumer.getmany(*wanted, timeout_ms=_POLL_MS, max_records=left)
            for messages in batches.values():
                records += [self._record(message) for message in messages]
            for tp in wanted:
                at[tp.partition] = int(await self._consumer.position(tp))
            if time.monotonic() > deadline_s:
                break
        return Piece(records, at)

    async def _ends(self) -> Mapping[int, int]:
        return _numbers(await self._consumer.end_offsets(list(self._all.values())))

    async def _with_consumer(self, work: Callable[[], Awaitable[_T]]) -> _T:
        async with self._lock:
            with kafka_errors(self._settings):
                try:
                    if self._consumer is None:
                        await self._connect()
                    return await work()
                except BaseException:
                    await self.close()
                    raise

    async def _connect(self) -> None:
        consumer = make_consumer(self._settings)
        try:
            await consumer.start()
            partitions = await partitions_of(consumer, self._full)
            if not partitions:
                raise ConfigError(f"there is no topic {self._full}: run `callmeter topics apply`")
            self._all = {n: TopicPartition(self._full, n) for n in sorted(partitions)}
            consumer.assign(list(self._all.values()))
            consumer.pause(*self._all.values())
        except BaseException:
            await consumer.stop()
            raise
        self._consumer = consumer

    def _record(self, message: Any) -> LogRecord:
        return LogRecord(
            self._topic,
            message.partition,
            message.offset,
            message.timestamp * 1000,
            message.key,
            message.value,
        )


def _numbers(offsets: Mapping[Any, Any]) -> dict[int, int]:
    return {tp.partition: int(offset) for tp, offset in offsets.items()}
