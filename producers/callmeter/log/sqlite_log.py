"""The embedded log: Kafka's (topic, partition, offset) model in one SQLite file (design 3)."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from callmeter.clock import Clock, SystemClock
from callmeter.errors import CannotWriteError, UsageError
from callmeter.log import sqlite_file
from callmeter.log import sqlite_tables as tables
from callmeter.log.partitioner import partition_for
from callmeter.log.position import (
    POSITION_KEY,
    PositionConflictError,
    encode_position,
)
from callmeter.log.record import Appended, LogRecord, NewRecord
from callmeter.log.sqlite_tables import OFFSET_BITS, OFFSET_MASK, Placed
from callmeter.log.sqlite_writer import GroupWriter
from callmeter.schema.topics import BY_NAME, EMBEDDED_PARTITIONS

#: How long an append of another process may go unnoticed by ``wait``.
_POLL_S = 0.25


class SqliteLog:
    """A log in the file ``path``; safe from any thread, not to be carried over a fork.

    Whatever ``append`` and ``commit`` return for is on disk (WAL, ``synchronous=FULL``). Concurrent
    writers share transactions. Several processes may open one file; that only one of them runs the
    processors is the business of the data directory's lock, and ``commit`` refuses a second anyway.
    ``max_bytes`` caps the file. Errors: ``CannotWriteError`` (full, locked, not writable),
    ``ConfigError`` (no log, damaged, other partitions), ``NewerSchemaError``.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        partitions: int = EMBEDDED_PARTITIONS,
        clock: Clock | None = None,
        max_bytes: int | None = None,
        busy_s: float = 30.0,
    ) -> None:
        self.path = Path(path)
        self._clock = clock or SystemClock()
        self._busy_s = busy_s
        self.log_id, self.partitions = sqlite_file.prepare(self.path, partitions, busy_s=busy_s)
        self._writer = GroupWriter(
            sqlite_file.connect(self.path, busy_s=busy_s, max_bytes=max_bytes), self.path
        )
        self._pid = os.getpid()
        self._closed = False
        self._readers: list[sqlite3.Connection] = []
        self._readers_lock = threading.Lock()
        self._appended = threading.Condition()
        self._last_us = 0
        with self._reader() as reader:
            self._streams: dict[tuple[str, int], int] = {
                (topic, part): stream
                for stream, topic, part in reader.execute("SELECT id, topic, part FROM streams")
            }

    # Writing

    def append(self, records: Sequence[NewRecord]) -> list[Appended]:
        """Appends in the order given, all or none; returns once they are on disk."""
        placed = [self._place(r) for r in records]
        if not placed:
            return []
        self._check_usable()
        result = self._writer.run(lambda db: tables.insert(db, placed, self._now_us()))
        self._notify()
        return result

    def commit(
        self,
        state_topic: str,
        partition: int,
        *,
        rows: Mapping[bytes, bytes | None],
        outputs: Sequence[NewRecord],
        next_offset: int,
        expected_next: int | None,
    ) -> list[Appended]:
        """Changed rows, outputs and position of one partition in one transaction.

        ``rows`` with None are deleted. ``next_offset`` is the next offset to read.
        ``PositionConflictError``, and nothing written, if the stored position is not
        ``expected_next`` (None: none stored): another runtime owns the partition. Returns where the
        outputs went.
        """
        state = self._stream(state_topic, partition)
        placed = [self._place(NewRecord(*output)) for output in outputs]
        forgotten = [key for key, value in rows.items() if value is None]
        changed: list[Placed] = [
            (state, state_topic, k, v) for k, v in rows.items() if v is not None
        ]
        changed.append(
            (state, state_topic, POSITION_KEY, encode_position(self.log_id, next_offset))
        )

        def work(connection: sqlite3.Connection) -> list[Appended]:
            stored = tables.stored_position(connection, state, self.log_id)
            if stored != expected_next:
                raise PositionConflictError(
                    f"partition {partition} of {state_topic}: the log is at {stored}, this runtime "
                    f"thought {expected_next}: another one runs on {self.path}"
                )
            for key in forgotten:
                tables.forget(connection, state, key)
            now_us = self._now_us()
            tables.insert(connection, changed, now_us)
            return tables.insert(connection, placed, now_us)

        self._check_usable()
        result = self._writer.run(work)
        self._notify()
        return result

    def prune(
        self,
        topic: str,
        *,
        before_us: int | None = None,
        below: Mapping[int, int] | None = None,
    ) -> int:
        """Deletes the oldest records: appended before ``before_us``, or below offsets.

        ``below`` maps partitions to offsets; with both, only what both allow. Of a compacted topic
        only tombstones go. Runs in short transactions, so writers are not held up. Returns the
        number of records deleted; offsets are not used again.
        """
        if before_us is None and below is None:
            raise UsageError("prune needs a time or offsets")
        self._check_usable()
        compacted = tables.is_compacted(topic)
        deleted = 0
        for (name, partition), stream in self._streams.items():
            if name != topic or (below is not None and partition not in below):
                continue
            limit = OFFSET_MASK if below is None else min(below[partition], OFFSET_MASK)
            chunk = partial(
                tables.prune_chunk,
                stream=stream,
                below=limit,
                before_us=before_us,
                tombstones_only=compacted,
            )
            while n := self._writer.run(chunk):
                deleted += n
        return deleted

    # Reading

    def read(
        self,
        topic: str,
        partition: int,
        offset: int,
        *,
        max_records: int = 500,
        max_bytes: int = 8 * 2**20,
    ) -> list[LogRecord]:
        """Records from ``offset`` on, in order; at least one if there is any, however large.

        If retention or compaction removed some, the first record's offset is above ``offset``.
        """
        base = self._stream(topic, partition) << OFFSET_BITS
        found: list[LogRecord] = []
        size = 0
        with self._reader() as reader:
            rows = reader.execute(
                "SELECT id, ts, key, value FROM records "
                "WHERE id BETWEEN ? AND ? ORDER BY id LIMIT ?",
                (base | max(offset, 0), base | OFFSET_MASK, max_records),
            )
            for row_id, timestamp_us, key, value in rows:
                size += len(value or b"") + len(key or b"")
                if found and size > max_bytes:
                    break
                found.append(
                    LogRecord(topic, partition, row_id & OFFSET_MASK, timestamp_us, key, value)
                )
            rows.close()
        return found

    def first_offset(self, topic: str, partition: int) -> int:
        """The offset of the oldest record that is left; the end if there is none."""
        base = self._stream(topic, partition) << OFFSET_BITS
        with self._reader() as reader:
            row = reader.execute(
                "SELECT id FROM records WHERE id BETWEEN ? AND ? ORDER BY id LIMIT 1",
                (base, base | OFFSET_MASK),
            ).fetchone()
        return self.end_offset(topic, partition) if row is None else row[0] & OFFSET_MASK

    def offset_at(self, topic: str, partition: int, time_us: int) -> int:
        """The first offset that the log had at that time or later; the end if there is none."""
        end = self.end_offset(topic, partition)  # first: what comes meanwhile is later
        base = self._stream(topic, partition) << OFFSET_BITS
        with self._reader() as reader:
            row = reader.execute(
                "SELECT id FROM records WHERE id BETWEEN ? AND ? AND ts >= ? ORDER BY id LIMIT 1",
                (base, base | OFFSET_MASK, time_us),
            ).fetchone()
        return end if row is None else row[0] & OFFSET_MASK

    def end_offset(self, topic: str, partition: int) -> int:
        """The offset the next record will get."""
        stream = self._stream(topic, partition)
        with self._reader() as reader:
            row = reader.execute("SELECT next FROM streams WHERE id = ?", (stream,)).fetchone()
        return int(row[0])

    def end_offsets(self, topic: str) -> dict[int, int]:
        """``end_offset`` of every partition, of one moment."""
        with self._reader() as reader:
            rows = reader.execute("SELECT part, next FROM streams WHERE topic = ?", (topic,))
            return dict(rows.fetchall())

    def rows(self, topic: str, partition: int) -> dict[bytes, bytes]:
        """The newest value of every live key of a compacted topic's partition."""
        stream = self._stream(topic, partition)
        with self._reader() as reader:
            return dict(
                reader.execute(
                    "SELECT l.key, r.value FROM latest l JOIN records r ON r.id = l.id "
                    "WHERE l.stream = ? AND r.value IS NOT NULL",
                    (stream,),
                ).fetchall()
            )

    def position(self, state_topic: str, partition: int) -> int | None:
        """The next offset to read, as a state topic's partition has it; None if it has none."""
        with self._reader() as reader:
            stream = self._stream(state_topic, partition)
            return tables.stored_position(reader, stream, self.log_id)

    def wait(
        self,
        topic: str,
        since: Mapping[int, int],
        timeout_s: float,
        *,
        stopping: threading.Event | None = None,
    ) -> bool:
        """Waits until a partition of ``since`` has a record at or above the offset given for it.

        True if there is one; False after ``timeout_s``, when the log is closed, or when
        ``stopping`` is set (call ``wake`` after setting it). Wakes at once on an append through
        this object, within a quarter of a second on one of another process.
        """
        deadline = time.monotonic() + timeout_s
        while not (self._closed or (stopping and stopping.is_set())):
            with self._appended:
                ends = self.end_offsets(topic)
                if any(ends[partition] > offset for partition, offset in since.items()):
                    return True
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                self._appended.wait(min(left, _POLL_S))
        return False

    def wake(self) -> None:
        """Makes every ``wait`` look again."""
        self._notify()

    def close(self) -> None:
        """Closes the file; what was appended is on disk already. Closing twice is harmless."""
        if self._closed:
            return
        self._closed = True
        self._notify()
        self._writer.close()
        with self._readers_lock:
            readers, self._readers = self._readers, []
        for reader in readers:
            reader.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def transactions(self) -> int:
        """Write transactions so far: fewer than appends when writers shared them."""
        return self._writer.transactions

    # Inside

    def _place(self, record: NewRecord) -> Placed:
        topic, key, value, partition = record
        if partition is None:
            if key is None:
                raise UsageError(f"a record for {topic} has neither key nor partition")
            fixed = BY_NAME[topic].partitions if topic in BY_NAME else None
            partition = partition_for(key, fixed or self.partitions)
        if key is None and tables.is_compacted(topic):
            raise UsageError(f"{topic} is compacted: its records need a key")
        return self._stream(topic, partition), topic, key, value

    def _stream(self, topic: str, partition: int) -> int:
        try:
            return self._streams[topic, partition]
        except KeyError:
            raise UsageError(f"the log has no partition {partition} of topic {topic!r}") from None

    def _now_us(self) -> int:
        """The log's own time; it does not go back while the log is open."""
        self._last_us = max(self._clock.now_us(), self._last_us)
        return self._last_us

    def _notify(self) -> None:
        with self._appended:
            self._appended.notify_all()

    def _check_usable(self) -> None:
        if os.getpid() != self._pid:
            raise UsageError(f"{self.path} was opened before a fork: open it again in the child")
        if self._closed:
            raise CannotWriteError(f"{self.path} is closed")

    @contextmanager
    def _reader(self) -> Iterator[sqlite3.Connection]:
        """A connection of its own: the writer's would show what is not yet committed."""
        self._check_usable()
        with self._readers_lock:
            reader = self._readers.pop() if self._readers else None
        try:
            if reader is None:
                reader = sqlite_file.connect(self.path, busy_s=self._busy_s)
                reader.execute("PRAGMA query_only=ON")
            yield reader
        except sqlite3.Error as exc:
            raise sqlite_file.translated(exc, self.path) from exc
        finally:
            if reader is not None:
                with self._readers_lock:
                    if not self._closed:
                        self._readers.append(reader)
                        reader = None
                if reader is not None:
                    reader.close()
