"""The embedded log behind the collector's seam: ``LogAppender`` over ``SqliteLog``."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from callmeter.errors import CannotWriteError, UnreachableError
from callmeter.log.record import Appended, NewRecord
from callmeter.log.sqlite_log import SqliteLog

#: Requests that may wait for one fsync together; each waits in a thread of its own.
DEFAULT_THREADS = 16


class SqliteAppender:
    """Implements ``LogAppender``; the event loop is never blocked by the disk.

    Requests that come while a transaction is being synced share the next one. A log that cannot be
    written (full, locked) raises ``UnreachableError`` with the log's own words: to a producer it is
    a service that is away for now, and re-sending is safe.
    """

    def __init__(self, log: SqliteLog, *, threads: int = DEFAULT_THREADS) -> None:
        self._log = log
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="callmeter-append")
        self.log_id = log.log_id
        self.partitions = log.partitions

    async def append(self, records: Sequence[NewRecord]) -> list[Appended]:
        """Returns once all are on disk, in the order given; all or none."""
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._pool, self._log.append, records)
        except CannotWriteError as exc:
            raise UnreachableError(str(exc)) from exc

    async def close(self) -> None:
        """Waits for appends under way; the log itself stays open, it has other users."""
        await asyncio.get_running_loop().run_in_executor(None, self._pool.shutdown)
