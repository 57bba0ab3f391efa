"""What a reader of committed records sees on Kafka, by a client that is not our own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from types import TracebackType
from typing import Any, NamedTuple, Self
from uuid import uuid4

import orjson
from confluent_kafka import Consumer, KafkaException, TopicPartition

_TIMEOUT_S = 60.0


class Seen(NamedTuple):
    """One committed record."""

    partition: int
    offset: int
    key: bytes
    value: bytes


def consumer(bootstrap: str) -> Consumer:
    """A consumer without a group's offsets, reading committed records only."""
    return Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": f"test-{uuid4().hex}",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "auto.offset.reset": "earliest",
            "fetch.wait.max.ms": 20,
            "log_level": 0,  # the broker is killed often: no line for each attempt to connect
        }
    )


def committed(bootstrap: str, topic: str, partitions: int) -> list[Seen]:
    """Every committed record of a topic, up to the end as it is now."""
    reader = consumer(bootstrap)
    try:
        found: list[Seen] = []
        for number in range(partitions):
            at = TopicPartition(topic, number, 0)
            end = reader.get_watermark_offsets(at, timeout=_TIMEOUT_S)[1]
            reader.assign([at])
            deadline_s = time.monotonic() + _TIMEOUT_S
            while True:
                message = reader.poll(0.2)
                if message is not None and message.error():
                    raise AssertionError(f"cannot read {topic}: {message.error()}")
                if message is not None:
                    if message.offset() >= end:
                        break
                    found.append(_seen(message))
                    continue
                # Markers of transactions have offsets and no records.
                (position,) = reader.position([at])
                if end == 0 or position.offset >= end:
                    break
                assert time.monotonic() < deadline_s, f"{topic} {number} ends before {end}"
        return found
    finally:
        reader.close()


def _seen(message: Any) -> Seen:
    return Seen(message.partition(), message.offset(), message.key() or b"", message.value() or b"")


class Listener:
    """Follows ``alerts`` and counts what is metered, on a thread, over the broker's faults."""

    def __init__(self, bootstrap: str, prefix: str, partitions: int) -> None:
        self._alerts, self._metered = f"{prefix}.alerts", f"{prefix}.metered"
        self._consumer = consumer(bootstrap)
        self._consumer.assign(
            [
                TopicPartition(topic, number, 0)
                for topic in (self._alerts, self._metered)
                for number in range(partitions)
            ]
        )
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._next: dict[tuple[str, int], int] = {}
        self.ids: dict[str, dict[str, Any]] = {}
        self.metered = 0

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                message = self._consumer.poll(0.2)
            except KafkaException:
                continue  # the broker is away: the client goes on by itself
            if message is None or message.error():
                continue
            place = (message.topic(), message.partition())
            if message.offset() < self._next.get(place, 0):
                continue
            self._next[place] = message.offset() + 1
            if message.topic() == self._metered:
                self.metered += 1
            else:
                alert = orjson.loads(message.value())
                self.ids[alert["id"]] = alert

    def moved(self, before: int) -> Callable[[], bool]:
        """Whether more was metered than ``before``."""
        return lambda: self.metered > before

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stopping.set()
        self._thread.join()
        self._consumer.close()


def once(records: Sequence[Seen]) -> None:
    """Every origin judged in one record, and the deltas' ranges without hole or overlap."""
    judged: set[tuple[int, int]] = set()
    ranges: dict[int, set[tuple[int, int, int]]] = {}
    for record in records:
        header = orjson.loads(record.value.split(b"\n", 1)[0])
        if header["type"] == "envelope":
            place = (header["partition"], header["offset"])
            assert place not in judged, f"origin {place} is judged twice"
            judged.add(place)
        else:
            part = (header["first"], header["last"], header.get("part", 0))
            known = ranges.setdefault(header["partition"], set())
            assert part not in known, f"deltas {part} of {header['partition']} come twice"
            known.add(part)
    for partition, parts in ranges.items():
        whole = sorted((first, last) for first, last, part in parts if part == 0)
        for (_, last), (first, _) in pairwise(whole):
            assert first == last + 1, f"deltas of partition {partition}: {last} then {first}"
