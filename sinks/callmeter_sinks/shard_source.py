"""The partitions of one shard, of a source that has all: what is done shard by shard reads this."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from callmeter.log.record import LogRecord
from callmeter_sinks.source import MeteredSource


class ShardSource:
    """A ``MeteredSource`` that gives the partitions p with p mod ``shards`` = ``index``.

    Closing is for whoever opened the source behind it.
    """

    def __init__(self, source: MeteredSource, shards: int, index: int) -> None:
        self.topic = source.topic
        self.log_id = source.log_id
        self.shared = source.shared
        self._source = source
        self._shards = shards
        self._index = index

    def assignment(self) -> Mapping[int, int]:
        assigned = self._source.assignment()
        return {p: epoch for p, epoch in assigned.items() if p % self._shards == self._index}

    def read(
        self, partition: int, offset: int, *, max_records: int, max_bytes: int
    ) -> list[LogRecord]:
        return self._source.read(partition, offset, max_records=max_records, max_bytes=max_bytes)

    def begun(self, partitions: Collection[int]) -> Collection[int]:
        return self._source.begun(partitions)

    def first_offset(self, partition: int) -> int:
        return self._source.first_offset(partition)

    def end_offset(self, partition: int) -> int:
        return self._source.end_offset(partition)

    def reached(self, partition: int, offset: int, end: int) -> bool:
        return self._source.reached(partition, offset, end)

    def wait(self, positions: Mapping[int, int], timeout_s: float) -> None:
        self._source.wait(positions, timeout_s)

    def wake(self) -> None:
        self._source.wake()

    def report(self, positions: Mapping[int, int]) -> None:
        self._source.report(positions)

    def close(self) -> None:
        """The source behind it belongs to whoever opened it."""
