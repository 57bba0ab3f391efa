"""Metered records on a real Kafka as a meter writes them, with a client that is not our own."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from confluent_kafka import Producer

from callmeter.log.kafka_admin import apply_topics
from callmeter.log.kafka_settings import KafkaSettings
from support.metered import MeteredStream, Truth

_TIMEOUT_S = 60.0


class MeteredTopic:
    """The topics of one prefix and a made-up stream for each partition.

    ``checkpoint`` commits one; ``abort`` writes one that is never committed, which nobody may see.
    """

    def __init__(self, bootstrap: str, prefix: str, *, partitions: int, seed: int) -> None:
        self.url = f"kafka://{bootstrap}?prefix={prefix}"
        settings = KafkaSettings.from_url(self.url, {})
        self.log_id = asyncio.run(apply_topics(settings, partitions=partitions)).log_id
        self.aborted = 0
        self._topic = f"{prefix}.metered"
        self.streams = [MeteredStream(self.log_id, p, seed, months=2) for p in range(partitions)]
        self._producers = [
            Producer(
                {
                    "bootstrap.servers": bootstrap,
                    "transactional.id": f"{prefix}.test.{p}",
                    "log_level": 0,  # it outlives its broker
                }
            )
            for p in range(partitions)
        ]
        for producer in self._producers:
            producer.init_transactions(_TIMEOUT_S)

    @property
    def truth(self) -> Truth:
        """What has been committed, added up."""
        truth = Truth()
        for stream in self.streams:
            truth.add(stream.truth)
        return truth

    def checkpoint(self, partition: int) -> None:
        records = self.streams[partition].checkpoint(envelopes=4, events=12, parts=2)
        self._write(partition, records)
        self._producers[partition].commit_transaction(_TIMEOUT_S)

    def abort(self, partition: int) -> None:
        """Lines that would be counted if they were ever read."""
        ghost = MeteredStream(self.log_id, partition, self.aborted, months=2)
        ghost.next_origin = self.streams[partition].next_origin
        self._write(partition, ghost.checkpoint(envelopes=2, events=5))
        self._producers[partition].abort_transaction(_TIMEOUT_S)
        self.aborted += 1

    def _write(self, partition: int, records: Sequence[bytes]) -> None:
        producer = self._producers[partition]
        producer.begin_transaction()
        for record in records:
            producer.produce(self._topic, record, key=b"source", partition=partition)
        producer.flush(_TIMEOUT_S)


class Feeder:
    """Checkpoints and, now and then, an aborted transaction, on a thread until it is left."""

    def __init__(self, topic: MeteredTopic, dice: random.Random, pause_s: float = 0.05) -> None:
        self._topic = topic
        self._dice = dice
        self._pause_s = pause_s
        self._enough = threading.Event()
        self._failed: list[BaseException] = []
        self._thread = threading.Thread(target=self._run, name="feeder")

    def _run(self) -> None:
        try:
            while not self._enough.wait(self._pause_s):
                partition = self._dice.randrange(len(self._topic.streams))
                if self._dice.random() < 0.2:
                    self._topic.abort(partition)
                else:
                    self._topic.checkpoint(partition)
        except BaseException as exc:  # noqa: BLE001  # raised where the feeder is left
            self._failed.append(exc)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._enough.set()
        self._thread.join()
        if self._failed:
            raise self._failed[0]
