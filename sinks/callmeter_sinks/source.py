"""Where a sink reads metered records from: one protocol over the SQLite log and Kafka."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Collection, Mapping
from typing import Protocol

from callmeter.log.record import LogRecord
from callmeter.log.sqlite_log import SqliteLog
from callmeter.schema.topics import BY_NAME, METERED

#: How often the embedded log is asked for what is rare.
_LOOK_S = 0.25


class MeteredSource(Protocol):
    """One reader of the topic ``metered``. Called from the sink's thread alone, but for ``wake``.

    Only records of committed transactions are seen. ``read`` never blocks for new records and holds
    a bounded number of bytes per partition. ``UnreachableError`` means the log is away for now;
    other ``CallmeterError`` stop the sink. Nothing here knows how far the store is: the caller says
    from which offset it reads.
    """

    topic: str
    log_id: str
    #: Whether other sinks of the same name may be given partitions of this log.
    shared: bool

    def assignment(self) -> Mapping[int, int]:
        """Partitions to read now, each with a number that grows whenever it is assigned anew."""
        ...

    def read(
        self, partition: int, offset: int, *, max_records: int, max_bytes: int
    ) -> list[LogRecord]:
        """Records at or above ``offset`` that are at hand, in order; may be empty.

        The first may lie above ``offset``: where a transaction's marker stood, or retention was.
        """
        ...

    def begun(self, partitions: Collection[int]) -> Collection[int]:
        """Those of the partitions that have ever had a record; may be a second late to say so."""
        ...

    def first_offset(self, partition: int) -> int:
        """The oldest offset that is left."""
        ...

    def end_offset(self, partition: int) -> int:
        """The offset behind the last committed record."""
        ...

    def reached(self, partition: int, offset: int, end: int) -> bool:
        """Whether no record is left between ``offset``, the next to read, and ``end``."""
        ...

    def wait(self, positions: Mapping[int, int], timeout_s: float) -> None:
        """Return once a partition has a record at or above its position, or after the time.

        Also returns when the assignment changes and on ``wake``.
        """
        ...

    def wake(self) -> None:
        """End a ``wait`` from another thread."""
        ...

    def report(self, positions: Mapping[int, int]) -> None:
        """Tell the log how far the sink is, for displays of lag; never read back, never fails."""
        ...

    def close(self) -> None: ...


class SqliteSource:
    """One topic of the embedded log: every partition, always."""

    shared = False

    def __init__(self, log: SqliteLog, topic: str = METERED.name) -> None:
        self.topic = topic
        self.log_id = log.log_id
        self._log = log
        self._partitions = BY_NAME[topic].partitions or log.partitions
        self._woken = threading.Event()

    def assignment(self) -> Mapping[int, int]:
        return dict.fromkeys(range(self._partitions), 1)

    def read(
        self, partition: int, offset: int, *, max_records: int, max_bytes: int
    ) -> list[LogRecord]:
        return self._log.read(
            self.topic, partition, offset, max_records=max_records, max_bytes=max_bytes
        )

    def begun(self, partitions: Collection[int]) -> Collection[int]:
        if not partitions:
            return ()
        ends = self._log.end_offsets(self.topic)
        return [partition for partition in partitions if ends.get(partition)]

    def first_offset(self, partition: int) -> int:
        return self._log.first_offset(self.topic, partition)

    def end_offset(self, partition: int) -> int:
        return self._log.end_offset(self.topic, partition)

    def reached(self, partition: int, offset: int, end: int) -> bool:
        if offset >= end:
            return True
        left = self.read(partition, offset, max_records=1, max_bytes=1)  # compaction leaves holes
        return not left or left[0].offset >= end

    def wait(self, positions: Mapping[int, int], timeout_s: float) -> None:
        if self.topic == METERED.name:
            self._log.wait(self.topic, positions, timeout_s, stopping=self._woken)
        else:
            # Not woken by every append of the log: what is rare is looked for now and then.
            self._woken.wait(min(timeout_s, _LOOK_S))
        self._woken.clear()

    def wake(self) -> None:
        self._woken.set()
        with contextlib.suppress(Exception):  # a closed log has nobody waiting
            self._log.wake()

    def report(self, positions: Mapping[int, int]) -> None:
        """The embedded log keeps no group offsets: lag is the sink's own figure."""

    def close(self) -> None:
        """The log belongs to whoever opened it."""
