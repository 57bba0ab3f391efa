"""A chDB in a process of its own that several sinks write to, as they would to a server.

``python store_host.py STORE SOCKET`` serves ``insert_block``, ``query`` and ``command`` over a Unix
socket and may be killed; ``RemoteStore`` is the other side, a ``Store`` that answers
``UnreachableError`` while nobody serves. For tests alone: what travels is pickled.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from callmeter.errors import UnreachableError
from callmeter_sinks.clickhouse.chdb_store import ChdbStore
from callmeter_sinks.clickhouse.sharding import Sharding
from callmeter_sinks.clickhouse.store import PermanentStoreError, Result, StoreBusyError

_METHODS = ("insert_block", "query", "command", "query_bytes")


class StoreHost:
    """The process that owns the engine: started on entry, killed and started again at will."""

    def __init__(self, store: Path, address: Path) -> None:
        self.address = address
        self.name = f"host:{address}"
        self._store = store
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Return when it serves."""
        from support.stores import put_migrated  # as a program this file finds no `support`

        if not self._store.exists():
            put_migrated(self._store)
        with contextlib.suppress(FileNotFoundError):
            self.address.unlink()  # left behind by a kill
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(self._store), str(self.address)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "UP\n"

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()


class RemoteStore:
    """A ``Store`` served by a ``StoreHost``. One call at a time."""

    embedded = True
    replicated = False
    cluster: str | None = None
    sharding: Sharding | None = None

    def __init__(self, address: Path) -> None:
        self.name = f"host:{address}"
        self._address = str(address)
        self._lock = threading.Lock()
        self._connection: Connection[Any, Any] | None = None

    def insert_block(
        self,
        table: str,
        columns: Sequence[str],
        block: bytes,
        *,
        fmt: str = "RowBinary",
        token: str | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        more = {"fmt": fmt, "token": token, "settings": settings}
        self._ask("insert_block", (table, list(columns), block), more)

    def query(
        self,
        sql: str,
        params: Mapping[str, Any] | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> Result:
        columns, rows = self._ask("query", (sql, params, settings), {})
        return Result(columns, rows)

    def command(
        self,
        sql: str,
        params: Mapping[str, Any] | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self._ask("command", (sql, params, settings), {})

    def query_bytes(
        self,
        sql: str,
        fmt: str,
        params: Mapping[str, Any] | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> bytes:
        answer: bytes = self._ask("query_bytes", (sql, fmt, params, settings), {})
        return answer

    def close(self) -> None:
        with self._lock:
            self._hang_up()

    def _hang_up(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _ask(self, method: str, positional: tuple[Any, ...], named: dict[str, Any]) -> Any:
        with self._lock:
            try:
                if self._connection is None:
                    self._connection = Client(self._address, "AF_UNIX")
                self._connection.send((method, positional, named))
                kind, answer = self._connection.recv()
            except (OSError, EOFError) as exc:
                self._hang_up()
                raise UnreachableError(f"{self.name} is away: {exc!r}") from exc
        if kind == "busy":
            raise StoreBusyError(*answer)
        if kind == "refused":
            raise PermanentStoreError(*answer)
        return answer


def serve(store: ChdbStore, address: str) -> None:
    """Answer one connection a thread, for ever."""
    with Listener(address, "AF_UNIX", backlog=16) as listener:
        print("UP", flush=True)
        while True:
            connection = listener.accept()
            threading.Thread(target=_answer, args=(store, connection), daemon=True).start()


def _answer(store: ChdbStore, connection: Connection[Any, Any]) -> None:
    with connection, contextlib.suppress(EOFError, OSError):  # the caller was killed: no matter
        while True:
            method, positional, named = connection.recv()
            assert method in _METHODS
            try:
                answer = getattr(store, method)(*positional, **named)
                connection.send(("done", tuple(answer) if method == "query" else answer))
            except StoreBusyError as exc:
                connection.send(("busy", (exc.code, exc.message)))
            except PermanentStoreError as exc:
                connection.send(("refused", (exc.code, exc.message)))


if __name__ == "__main__":
    serve(ChdbStore(sys.argv[1]), sys.argv[2])
