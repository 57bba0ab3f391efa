"""What the tests of the Faust runtime ask of a real Kafka: topics, records in, records out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from callmeter.log.kafka_admin import apply_topics
from callmeter.log.kafka_appender import KafkaAppender
from callmeter.log.kafka_settings import KafkaSettings
from callmeter.log.kafka_state import open_partition, read_rows
from callmeter.log.position import POSITION_KEY, decode_position
from callmeter.log.record import LogRecord, NewRecord
from support.toy_step import delta_total


@dataclass(frozen=True)
class ToyKafka:
    """The topics of one prefix with four partitions."""

    url: str
    settings: KafkaSettings
    log_id: str
    partitions: int

    @classmethod
    def create(cls, url: str, prefix: str, partitions: int = 4) -> ToyKafka:
        full = f"{url}?prefix={prefix}"
        settings = KafkaSettings.from_url(full, {})
        applied = asyncio.run(apply_topics(settings, partitions=partitions))
        return cls(full, settings, applied.log_id, partitions)

    def append(self, records: Sequence[NewRecord]) -> None:
        async def run() -> None:
            appender = await KafkaAppender.start(self.settings)
            await appender.append(records)
            await appender.close()

        asyncio.run(run())

    def read(self, topic: str, partition: int) -> list[LogRecord]:
        """Every committed record there is now."""

        async def run() -> list[LogRecord]:
            async with open_partition(self.settings, topic, partition) as reader:
                return [record async for record in reader.read(*await reader.offsets())]

        return asyncio.run(run())

    def ends(self, topic: str) -> list[int]:
        async def run() -> list[int]:
            ends = []
            for partition in range(self.partitions):
                async with open_partition(self.settings, topic, partition) as reader:
                    ends.append((await reader.offsets())[1])
            return ends

        return asyncio.run(run())

    def rows(self, partition: int) -> dict[bytes, bytes]:
        return asyncio.run(read_rows(self.settings, "meter-state", partition))

    def positions(self) -> list[int]:
        """The next offset of each partition; 0 where there is no state of this log."""
        rows = [self.rows(p).get(POSITION_KEY) for p in range(self.partitions)]
        return [(value and decode_position(value, self.log_id)) or 0 for value in rows]

    def caught_up(self) -> bool:
        return self.positions() == self.ends("events")

    def total(self) -> tuple[int, int]:
        """The deltas of all partitions added up; fails if one overlaps or is missing."""
        sums = [
            delta_total(r.value or b"" for r in self.read("metered", p))
            for p in range(self.partitions)
        ]
        return sum(n for n, _ in sums), sum(s for _, s in sums)


def until(what: Callable[[], bool], log_file: Path, timeout_s: float = 90.0) -> None:
    """Polls until ``what`` holds; fails with the end of the worker's log after ``timeout_s``."""
    deadline = time.monotonic() + timeout_s
    while not what():
        if time.monotonic() > deadline:
            tail = log_file.read_text(errors="replace")[-3000:] if log_file.exists() else ""
            raise AssertionError(f"not within {timeout_s} s; the worker's log ends:\n{tail}")
        time.sleep(0.2)
