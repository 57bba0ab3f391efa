"""The ``events`` topic of one test on a real Kafka, made and read with a client not our own."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType
from typing import Self
from uuid import uuid4

from confluent_kafka import Consumer, Message, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

_TIMEOUT_S = 30.0


class EventsTopic:
    """Made on entry, deleted on exit. ``extra`` are further librdkafka settings (SASL, TLS)."""

    def __init__(
        self,
        bootstrap: str,
        prefix: str,
        *,
        partitions: int = 4,
        config: Mapping[str, str] | None = None,
        extra: Mapping[str, str] | None = None,
    ) -> None:
        self.name = f"{prefix}.events"
        self.url = f"kafka://{bootstrap}?prefix={prefix}"
        self._partitions = partitions
        self._config = {"message.timestamp.type": "LogAppendTime", **(config or {})}
        self._client = {"bootstrap.servers": bootstrap, **(extra or {})}
        self._admin = AdminClient(self._client)

    def __enter__(self) -> Self:
        topic = NewTopic(
            self.name, num_partitions=self._partitions, replication_factor=1, config=self._config
        )
        self._admin.create_topics([topic])[self.name].result(_TIMEOUT_S)
        deadline_s = time.monotonic() + _TIMEOUT_S
        while not self._visible():  # made by the controller; the broker learns of it later
            if time.monotonic() > deadline_s:
                raise AssertionError(f"{self.name} did not appear")
            time.sleep(0.02)
        return self

    def _visible(self) -> bool:
        topic = self._admin.list_topics(self.name, timeout=_TIMEOUT_S).topics[self.name]
        return len(topic.partitions) == self._partitions and all(
            partition.leader >= 0 for partition in topic.partitions.values()
        )

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._admin.delete_topics([self.name])[self.name].result(_TIMEOUT_S)

    def values(self) -> list[bytes]:
        """What all records carry, partition by partition, up to the end as it is now."""
        return [message.value() or b"" for message in self.messages()]

    def messages(self) -> list[Message]:
        """All records, partition by partition."""
        consumer = Consumer(
            {
                **self._client,
                "group.id": f"test-{uuid4().hex}",
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "auto.offset.reset": "earliest",
            }
        )
        try:
            return self._read(consumer)
        finally:
            consumer.close()

    def _read(self, consumer: Consumer) -> list[Message]:
        found: list[Message] = []
        starts = [TopicPartition(self.name, number, 0) for number in range(self._partitions)]
        ends = {
            at.partition: consumer.get_watermark_offsets(at, timeout=_TIMEOUT_S)[1] for at in starts
        }
        unread = {partition for partition, end in ends.items() if end > 0}
        consumer.assign([at for at in starts if at.partition in unread])
        while unread:
            message = consumer.poll(_TIMEOUT_S)
            if message is None or message.error():
                raise AssertionError(f"cannot read {self.name}: {message}")
            found.append(message)
            if message.offset() == ends[message.partition()] - 1:
                unread.discard(message.partition())
        return sorted(found, key=lambda message: (message.partition(), message.offset()))
