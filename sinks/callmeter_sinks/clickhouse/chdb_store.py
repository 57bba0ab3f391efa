"""ClickHouse inside this process: one engine, one directory, one owner.

What chDB demands, and where it is met: one process owns a directory (``OwnedDirectory``, which also
repairs phantoms before the engine opens); one directory per process at a time (``_OPEN``); a query
after a fork hangs for ever (refused here by pid; a spawned process opens its own store); one
statement at a time on a connection (``_lock``).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from callmeter.errors import CannotWriteError, ConfigError, MissingExtraError
from callmeter_sinks.clickhouse import params as binding
from callmeter_sinks.clickhouse.lock import OwnedDirectory
from callmeter_sinks.clickhouse.refusals import refused
from callmeter_sinks.clickhouse.sharding import Sharding
from callmeter_sinks.clickhouse.store import INSERT_SETTINGS, PermanentStoreError, Result

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

#: At most so many bytes of decompressed blocks are kept, of statements that set
#: ``use_uncompressed_cache``; the engine's own default keeps none (docs/decisions/0022).
CACHE_BYTES = 128 * 2**20

#: The directory this process has open: chDB allows one, and connecting to another fails obscurely.
_OPEN: dict[int, Path] = {}
_OPEN_LOCK = threading.Lock()

_CLOSED = PermanentStoreError(0, "the store is closed")


class ChdbStore:
    """A ``Store`` over chDB. Opening takes about a second and 280 MB.

    ``repaired`` holds what the phantom repair dropped, for the log of whoever opened it.
    """

    embedded = True
    replicated = False
    cluster: str | None = None
    sharding: Sharding | None = None

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).absolute()
        self.name = f"chdb:{self.path}"
        self._lock = threading.RLock()
        self._client: Client | None = None
        self._pid = os.getpid()
        with _OPEN_LOCK:
            other = _OPEN.get(self._pid)
            if other is not None:
                raise ConfigError(
                    f"this process has {other} open already, and chDB opens one directory a process"
                )
            self._directory = OwnedDirectory(self.path)
            self.repaired = self._directory.acquire()
            try:
                self._client = self._connect()
            except BaseException:
                self._directory.release()
                raise
            _OPEN[self._pid] = self.path

    def _connect(self) -> Client:
        try:
            import clickhouse_connect
            from clickhouse_connect.driver.exceptions import ClickHouseError, NotSupportedError
        except ImportError as exc:
            raise MissingExtraError("clickhouse-connect", "embedded") from exc
        try:
            return clickhouse_connect.get_client(
                interface="chdb",
                path=str(self.path),
                tz_mode="aware",
                chdb_options={"uncompressed_cache_size": CACHE_BYTES},
            )
        except (ImportError, NotSupportedError) as exc:
            raise MissingExtraError("chdb", "embedded") from exc
        except ClickHouseError as exc:
            raise CannotWriteError(f"{self.path}: the engine did not open it: {exc}") from exc

    def _engine(self) -> Client:
        if os.getpid() != self._pid:
            raise ConfigError(
                "a chDB store cannot be used after a fork: open it in the child, or start the "
                "child with the multiprocessing method 'spawn'"
            )
        if self._client is None:
            raise _CLOSED
        return self._client

    def command(
        self,
        sql: str,
        params: Mapping[str, Any] | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        bound = binding.checked(sql, params)
        engine = self._engine()
        with self._lock, refused(self.name):
            engine.command(sql, parameters=bound, settings=dict(settings or {}))

    def query(
        self,
        sql: str,
        params: Mapping[str, Any] | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> Result:
        bound = binding.checked(sql, params)
        engine = self._engine()
        with self._lock, refused(self.name):
            answer = engine.query(sql, parameters=bound, settings=dict(settings or {}))
            return Result(tuple(answer.column_names), list(map(tuple, answer.result_rows)))

    def query_bytes(
        self,
        sql: str,
        fmt: str,
        params: Mapping[str, Any] | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> bytes:
        bound = binding.checked(sql, params)
        engine = self._engine()
        with self._lock, refused(self.name):
            answer = engine.raw_query(
                sql, parameters=bound, settings=dict(settings or {}), fmt=binding.format_name(fmt)
            )
            return bytes(answer)

    def query_file(
        self,
        sql: str,
        fmt: str,
        path: Path,
        params: Mapping[str, Any] | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        # The engine writes the file itself: its client would hold Parquet and Arrow whole.
        name = str(path.absolute()).replace("\\", "\\\\").replace("'", "\\'")
        into = f"{sql} INTO OUTFILE '{name}' FORMAT {binding.format_name(fmt)}"
        bound = binding.checked(sql, params)
        engine = self._engine()
        with self._lock, refused(self.name):
            engine.raw_query(into, parameters=bound, settings=dict(settings or {}))

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
        # raw_insert, because insert() asks the engine to DESCRIBE the table each time.
        wanted = {**INSERT_SETTINGS, **(settings or {})}
        if token is not None:
            wanted["insert_deduplication_token"] = token
        engine = self._engine()
        with self._lock, refused(self.name):
            engine.raw_insert(
                binding.table_name(table),
                column_names=list(columns),
                insert_block=block,
                settings=wanted,
                fmt=binding.format_name(fmt),
            )

    def close(self) -> None:
        if os.getpid() != self._pid:
            return  # the engine and the directory belong to the parent
        with self._lock:
            client, self._client = self._client, None
            if client is None:
                return
            with ExitStack() as ending:
                ending.callback(self._let_go)
                ending.callback(client.close)
                # An engine that has been closed keeps this memory until the process ends.
                client.command("SYSTEM DROP UNCOMPRESSED CACHE")

    def _let_go(self) -> None:
        with _OPEN_LOCK:
            _OPEN.pop(self._pid, None)
        self._directory.release()
