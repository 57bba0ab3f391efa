"""Group commit: whoever waits to write shares one transaction, and so one fsync."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from callmeter.errors import CallmeterError, CannotWriteError
from callmeter.log.sqlite_file import translated

T = TypeVar("T")


class _Request(Generic[T]):
    __slots__ = ("done", "error", "result", "work")

    def __init__(self, work: Callable[[sqlite3.Connection], T]) -> None:
        self.work = work
        self.done = False
        self.result: T | None = None
        self.error: BaseException | None = None


class GroupWriter:
    """One connection that runs pieces of work, several in a transaction when several wait.

    There is no thread behind it: the first to come takes the turn and commits for all who queued up
    while the transaction before it was being synced. Safe from any thread.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self._path = path
        self._turn = threading.Lock()
        self._queue_lock = threading.Lock()
        self._queue: list[_Request[object]] = []
        self._closed = False
        self.transactions = 0

    def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Runs ``work`` inside a transaction and returns its result once that is on disk.

        A ``CallmeterError`` from ``work`` is a refusal: it must come before the first write and
        fails this piece alone. Any other exception rolls the whole group back and reaches all of
        it.
        """
        request: _Request[T] = _Request(work)
        with self._queue_lock:
            self._queue.append(request)  # type: ignore[arg-type]
        with self._turn:
            if not request.done:
                self._commit_group()
        if request.error is not None:
            raise request.error
        return request.result  # type: ignore[return-value]

    def close(self) -> None:
        """Waits for the transaction that is under way, then closes the connection."""
        with self._turn:
            self._closed = True
            self._connection.close()

    def _commit_group(self) -> None:
        with self._queue_lock:
            group, self._queue = self._queue, []
        try:
            if self._closed:
                raise CannotWriteError(f"{self._path} is closed")
            self._transaction(group)
        except sqlite3.Error as exc:
            self._fail(group, exc)
        except BaseException as exc:
            self._fail(group, exc)
            raise
        finally:
            for request in group:
                request.done = True

    def _transaction(self, group: list[_Request[object]]) -> None:
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        for request in group:
            try:
                request.result = request.work(connection)
            except CallmeterError as exc:
                request.error = exc
        connection.execute("COMMIT")
        self.transactions += 1

    def _fail(self, group: list[_Request[object]], exc: BaseException) -> None:
        if not self._closed and self._connection.in_transaction:
            self._connection.execute("ROLLBACK")
        for request in group:
            # One error object per waiter: a traceback is not to be shared between threads.
            request.error = (
                translated(exc, self._path)
                if isinstance(exc, sqlite3.Error)
                else CannotWriteError(f"{self._path}: nothing was written: {exc!r}")
            )
