"""Records of the log, and what every log promises."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol


class LogRecord(NamedTuple):
    """A record as read. ``topic`` is the registry's name, without prefix."""

    topic: str
    partition: int
    offset: int
    timestamp_us: int  # the log's own time of appending
    key: bytes | None
    value: bytes | None  # None is a tombstone (compacted topics)


class Piece(NamedTuple):
    """Records in the order of each partition, and where to go on, for every partition."""

    records: Sequence[LogRecord]
    next: Mapping[int, int]


class NewRecord(NamedTuple):
    """A record to append. ``partition`` None means murmur2(key) mod N."""

    topic: str
    key: bytes | None
    value: bytes | None
    partition: int | None = None


class Appended(NamedTuple):
    """Where a record went."""

    partition: int
    offset: int


class LogAppender(Protocol):
    """Appends from an asyncio program: the collector, the command line.

    ``append`` returns once every record is durable in the log (Kafka: acks=all; SQLite: fsynced),
    in the order given. It raises ``UnreachableError`` if that could not be learned within the
    time-out, in which case a record may or may not be there: re-sending the same envelope is always
    safe.
    """

    log_id: str
    partitions: int

    async def append(self, records: Sequence[NewRecord]) -> list[Appended]: ...

    async def close(self) -> None: ...
