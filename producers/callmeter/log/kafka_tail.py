"""Follows whole topics from their beginning, or from offsets: every committed record once, without
a group.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from aiokafka import TopicPartition

from callmeter.log.kafka_clients import make_consumer, partitions_of
from callmeter.log.kafka_errors import kafka_errors
from callmeter.log.kafka_settings import KafkaSettings
from callmeter.log.record import LogRecord
from callmeter.schema.topics import BY_NAME

_CONNECT_WAIT_MS = 200


class KafkaTail:
    """Records of the topics in the order of each partition; on one event loop.

    ``poll`` connects when it has to. After ``UnreachableError`` it may be called again and goes on
    where it was. ``begin`` maps (topic, partition) to the offset to begin at; 0 where it says none.
    ``removed`` counts offsets that retention had removed when it wanted to go on there; who tells
    of them may set it back.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        topics: Sequence[str],
        begin: Mapping[tuple[str, int], int] | None = None,
    ) -> None:
        self._settings = settings
        self._names = {BY_NAME[name].full(settings.prefix): name for name in topics}
        self._consumer: Any = None
        self._next: dict[Any, int] = {
            TopicPartition(BY_NAME[name].full(settings.prefix), partition): offset
            for (name, partition), offset in (begin or {}).items()
        }
        self._ends: dict[Any, int] = {}
        self.removed = 0

    async def poll(self, wait_ms: int = _CONNECT_WAIT_MS) -> list[LogRecord]:
        """What has come since the last call; waits for the first record, at most ``wait_ms``."""
        with kafka_errors(self._settings):
            try:
                if self._consumer is None:
                    await self._connect()
                batches = await self._consumer.getmany(timeout_ms=wait_ms)
                for tp in self._ends:
                    self._next[tp] = int(await self._consumer.position(tp))
            except BaseException:
                await self.close()
                raise
        return [
            LogRecord(
                self._names[tp.topic],
                tp.partition,
                message.offset,
                message.timestamp * 1000,
                message.key,
                message.value,
            )
            for tp, messages in batches.items()
            for message in messages
        ]

    @property
    def caught_up(self) -> bool:
        """Whether everything was read that was there when it connected."""
        return bool(self._ends) and all(
            self._next.get(tp, 0) >= end for tp, end in self._ends.items()
        )

    async def close(self) -> None:
        """Lets go of the connection; closing twice is harmless."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await consumer.stop()

    async def _connect(self) -> None:
        consumer = make_consumer(self._settings)
        try:
            await consumer.start()
            found = []
            for full in self._names:
                partitions = await partitions_of(consumer, full)
                found += [TopicPartition(full, partition) for partition in partitions]
            consumer.assign(found)
            self._ends = {tp: int(n) for tp, n in (await consumer.end_offsets(found)).items()}
            begins = await consumer.beginning_offsets(found)
            for tp in found:
                begin = int(begins[tp])
                self.removed += max(0, begin - self._next.get(tp, begin))
                consumer.seek(tp, max(self._next.get(tp, 0), begin))
        except BaseException:
            await consumer.stop()
            raise
        self._consumer = consumer
