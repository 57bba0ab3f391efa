"""Where a collector reads alerts from: an embedded log, or Kafka."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

from callmeter.log.record import LogRecord, Piece
from callmeter.schema.topics import ALERTS

if TYPE_CHECKING:
    from callmeter.log.sqlite_log import SqliteLog


class AlertRecords(Protocol):
    """The topic ``alerts``, read from any offsets. Used on the collector's loop, by many at once.

    Offsets are by partition, all partitions. Everything raises ``UnreachableError`` while the log
    is away. On Kafka this is ``callmeter.log.kafka_pieces.KafkaPieces``.
    """

    async def firsts(self) -> Mapping[int, int]:
        """The offset of the oldest record that is left."""
        ...

    async def ends(self) -> Mapping[int, int]:
        """The offset that the next record will get."""
        ...

    async def at(self, time_us: int) -> Mapping[int, int]:
        """The first offset that the log had at that time or later, else the end."""
        ...

    async def read(self, begin: Mapping[int, int], most: int) -> Piece:
        """Up to ``most`` committed records from these offsets on; does not wait for more."""
        ...

    async def close(self) -> None: ...


class SqliteAlertRecords:
    """The records of an embedded log, which is its owner's to close."""

    def __init__(self, log: SqliteLog) -> None:
        self._log = log

    async def firsts(self) -> Mapping[int, int]:
        return await asyncio.to_thread(
            lambda: {p: self._log.first_offset(ALERTS.name, p) for p in self._partitions()}
        )

    async def ends(self) -> Mapping[int, int]:
        return await asyncio.to_thread(self._log.end_offsets, ALERTS.name)

    async def at(self, time_us: int) -> Mapping[int, int]:
        return await asyncio.to_thread(
            lambda: {p: self._log.offset_at(ALERTS.name, p, time_us) for p in self._partitions()}
        )

    async def read(self, begin: Mapping[int, int], most: int) -> Piece:
        return await asyncio.to_thread(self._read, begin, most)

    async def close(self) -> None:
        """Nothing to let go of."""

    def _read(self, begin: Mapping[int, int], most: int) -> Piece:
        found: list[LogRecord] = []
        at = {partition: begin.get(partition, 0) for partition in self._partitions()}
        for partition, offset in at.items():
            left = most - len(found)
            if left <= 0:
                break
            records = self._log.read(ALERTS.name, partition, offset, max_records=left)
            if records:
                found += records
                at[partition] = records[-1].offset + 1
        return Piece(found, at)

    def _partitions(self) -> range:
        return range(self._log.partitions)
