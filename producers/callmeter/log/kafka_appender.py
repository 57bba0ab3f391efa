"""Kafka behind the collector's seam: ``LogAppender`` over an idempotent producer."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Self

from callmeter.errors import UsageError
from callmeter.log.kafka_admin import check_topics, read_log_id
from callmeter.log.kafka_clients import make_producer
from callmeter.log.kafka_errors import kafka_errors
from callmeter.log.kafka_settings import KafkaSettings
from callmeter.log.partitioner import partition_for
from callmeter.log.record import Appended, NewRecord
from callmeter.schema.topics import BY_NAME


class KafkaAppender:
    """Implements ``LogAppender``: acks=all, idempotent, zstd. Made by ``start``.

    Records of one partition keep their order. ``append`` gives up after ``timeout_s``.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        producer: Any,
        *,
        log_id: str,
        partitions: int,
        timeout_s: float,
    ) -> None:
        self._settings = settings
        self._producer = producer
        self._timeout_s = timeout_s
        self.log_id = log_id
        self.partitions = partitions

    @classmethod
    async def start(cls, settings: KafkaSettings, *, timeout_s: float = 10.0) -> Self:
        """Connects; ``ConfigError`` if topics or log id are missing, ``UnreachableError``."""
        partitions = await check_topics(settings)
        log_id = await read_log_id(settings)
        producer = make_producer(settings, acks="all", enable_idempotence=True, linger_ms=2)
        try:
            with kafka_errors(settings):
                await producer.start()
        except BaseException:
            await producer.stop()
            raise
        return cls(settings, producer, log_id=log_id, partitions=partitions, timeout_s=timeout_s)

    async def append(self, records: Sequence[NewRecord]) -> list[Appended]:
        """Returns once every record is acknowledged by all in-sync replicas."""
        placed = [(record, self._partition(record)) for record in records]
        with kafka_errors(self._settings):
            async with asyncio.timeout(self._timeout_s):
                futures = [
                    await self._producer.send(
                        BY_NAME[record.topic].full(self._settings.prefix),
                        key=record.key,
                        value=record.value,
                        partition=partition,
                    )
                    for record, partition in placed
                ]
                metadata = await asyncio.gather(*futures)
        return [Appended(m.partition, m.offset) for m in metadata]

    async def close(self) -> None:
        """Waits a moment for what is under way, then lets go."""
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._producer.stop()
        except TimeoutError:
            # Nobody was told that those records are in the log: whoever sent them sends again.
            return

    def _partition(self, record: NewRecord) -> int:
        if record.topic not in BY_NAME:
            raise UsageError(f"there is no topic {record.topic!r}")
        if record.partition is not None:
            return record.partition
        if record.key is None:
            raise UsageError(f"a record for {record.topic} has neither key nor partition")
        return partition_for(record.key, BY_NAME[record.topic].partitions or self.partitions)
