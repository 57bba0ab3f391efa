"""Reading one partition of Kafka from one offset to another, and whole compacted topics.

Everything here reads ``read_committed`` and knows where it ends before it begins: no consumer
group, no committed offsets.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import TopicPartition

from callmeter.errors import ConfigError, UnreachableError
from callmeter.log.kafka_clients import make_consumer, make_producer
from callmeter.log.kafka_errors import kafka_errors
from callmeter.log.kafka_settings import KafkaSettings
from callmeter.log.record import LogRecord
from callmeter.schema.topics import BY_NAME

_POLL_MS = 200
_STALLED_S = 30.0


class PartitionReader:
    """One partition of one topic. Made by ``open_partition``; used from one task."""

    def __init__(self, settings: KafkaSettings, consumer: Any, topic: str, partition: int) -> None:
        self._settings = settings
        self._consumer = consumer
        self._topic = topic
        self._partition = partition
        self._tp = TopicPartition(BY_NAME[topic].full(settings.prefix), partition)

    async def offsets(self) -> tuple[int, int]:
        """The first offset that retention left, and the end that a committed reader can reach."""
        with kafka_errors(self._settings):
            first = (await self._consumer.beginning_offsets([self._tp]))[self._tp]
            end = (await self._consumer.end_offsets([self._tp]))[self._tp]
        return int(first), int(end)

    async def read(self, first: int, end: int) -> AsyncIterator[LogRecord]:
        """Every committed record with ``first`` <= offset < ``end``, in order.

        ``UnreachableError`` if the broker gives nothing for half a minute.
        """
        tp, consumer = self._tp, self._consumer
        loop = asyncio.get_running_loop()
        moved_s = loop.time()
        # Without an explicit seek an aiokafka consumer with auto_offset_reset='latest' may begin at
        # the end; 'earliest' and a seek begin where they are told.
        consumer.seek(tp, first)
        position = first
        while position < end:
            with kafka_errors(self._settings):
                batches = await consumer.getmany(tp, timeout_ms=_POLL_MS)
                reached = await consumer.position(tp)
            for message in batches.get(tp, ()):
                if message.offset >= end:
                    return
                yield LogRecord(
                    self._topic,
                    self._partition,
                    message.offset,
                    message.timestamp * 1000,
                    message.key,
                    message.value,
                )
            if reached > position:
                position, moved_s = reached, loop.time()
            elif loop.time() - moved_s > _STALLED_S:
                raise UnreachableError(
                    f"{self._settings.display} gives no records of {tp.topic} partition "
                    f"{tp.partition} from offset {position} on"
                )

    async def rows(self) -> dict[bytes, bytes]:
        """The newest value of every live key, up to the end as it is now."""
        first, end = await self.offsets()
        rows: dict[bytes, bytes] = {}
        async for record in self.read(first, end):
            if record.key is None:
                continue
            if record.value is None:
                rows.pop(record.key, None)
            else:
                rows[record.key] = record.value
        return rows


@asynccontextmanager
async def open_partition(
    settings: KafkaSettings, topic: str, partition: int
) -> AsyncIterator[PartitionReader]:
    """A reader of a registry topic's partition; the topic must exist."""
    consumer = make_consumer(settings)
    try:
        with kafka_errors(settings):
            await consumer.start()
            consumer.assign([TopicPartition(BY_NAME[topic].full(settings.prefix), partition)])
        yield PartitionReader(settings, consumer, topic, partition)
    finally:
        await consumer.stop()


async def read_rows(settings: KafkaSettings, topic: str, partition: int) -> dict[bytes, bytes]:
    """The newest value of every live key of one partition of a compacted topic."""
    async with open_partition(settings, topic, partition) as reader:
        return await reader.rows()


async def read_table(settings: KafkaSettings, topic: str) -> dict[bytes, bytes]:
    """A whole compacted topic of one partition (``prices``, ``budgets``): newest value by key."""
    _single(topic)
    return await read_rows(settings, topic, 0)


async def publish(
    settings: KafkaSettings,
    topic: str,
    rows: Mapping[bytes, bytes | None],
    *,
    timeout_s: float = 30.0,
) -> None:
    """Writes rows to a topic of one partition, durable on return; None deletes a key."""
    _single(topic)
    producer = make_producer(settings, acks="all", enable_idempotence=True)
    try:
        with kafka_errors(settings):
            async with asyncio.timeout(timeout_s):
                await producer.start()
                full = BY_NAME[topic].full(settings.prefix)
                for key, value in rows.items():
                    await producer.send_and_wait(full, key=key, value=value, partition=0)
    finally:
        await producer.stop()


def _single(topic: str) -> None:
    if BY_NAME[topic].partitions != 1:
        raise ConfigError(f"{topic} has more than one partition: read its partitions one by one")
