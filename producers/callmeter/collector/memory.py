"""A log in a list: the collector's seam for tests and benchmarks."""

from __future__ import annotations

from collections.abc import Sequence

from callmeter.errors import UnreachableError
from callmeter.ids import uuid7
from callmeter.log.partitioner import partition_for
from callmeter.log.record import Appended, NewRecord


class MemoryAppender:
    """A ``LogAppender`` whose records may be read at any time, by partition.

    ``away`` set to a text makes appends fail with it, as a log does that cannot be reached.
    """

    def __init__(self, partitions: int = 4) -> None:
        self.log_id = uuid7()
        self.partitions = partitions
        self.records: list[list[NewRecord]] = [[] for _ in range(partitions)]
        self.away: str | None = None
        self.closed = False

    async def append(self, records: Sequence[NewRecord]) -> list[Appended]:
        """All at once, in order."""
        if self.away is not None:
            raise UnreachableError(self.away)
        places = []
        for record in records:
            partition = record.partition
            if partition is None:
                partition = partition_for(record.key or b"", self.partitions)
            places.append(Appended(partition, len(self.records[partition])))
            self.records[partition].append(record)
        return places

    async def close(self) -> None:
        """Only remembers it."""
        self.closed = True

    def values(self) -> list[bytes]:
        """What all records carry, partition by partition."""
        return [record.value or b"" for records in self.records for record in records]
