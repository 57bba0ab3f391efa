"""The one seam to ClickHouse: what every store promises. ``opening.open_store`` opens one by URL.

Errors of a store:

    UnreachableError           transport: connection, time-out, a 5xx that no engine has answered
    └── StoreBusyError         the engine says "later": too many parts, read-only, memory, Keeper
    PermanentStoreError        the engine refuses, and will refuse the same again
    CannotWriteError           a directory in use by another process, or not writable
    MissingExtraError          clickhouse-connect or chdb is not installed
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from callmeter.errors import CallmeterError, UnreachableError
from callmeter_sinks.clickhouse.sharding import Sharding

#: Settings of every insert (design 8): one insert is one block whatever its size, so that the same
#: bytes under the same token make the same blocks, and each view's target deduplicates them too.
INSERT_SETTINGS: Mapping[str, str] = {
    "async_insert": "0",
    "max_insert_block_size": "10000000",
    "min_insert_block_size_rows": "0",
    "min_insert_block_size_bytes": "0",
    "max_insert_threads": "1",
    "max_partitions_per_insert_block": "0",
    "deduplicate_blocks_in_dependent_materialized_views": "1",
}

#: Codes with which a healthy engine says "not now" (ClickHouse, src/Common/ErrorCodes.cpp).
BUSY_CODES = frozenset(
    {
        159,  # TIMEOUT_EXCEEDED
        202,  # TOO_MANY_SIMULTANEOUS_QUERIES
        209,  # SOCKET_TIMEOUT
        210,  # NETWORK_ERROR
        225,  # NO_ZOOKEEPER
        236,  # ABORTED
        241,  # MEMORY_LIMIT_EXCEEDED
        242,  # TABLE_IS_READ_ONLY
        243,  # NOT_ENOUGH_SPACE
        252,  # TOO_MANY_PARTS
        279,  # ALL_CONNECTION_TRIES_FAILED
        285,  # TOO_FEW_LIVE_REPLICAS
        286,  # UNSATISFIED_QUORUM_FOR_PREVIOUS_WRITE
        289,  # REPLICA_IS_NOT_IN_QUORUM
        319,  # UNKNOWN_STATUS_OF_INSERT
        394,  # QUERY_WAS_CANCELLED
        999,  # KEEPER_EXCEPTION
    }
)


class StoreBusyError(UnreachableError):
    """The engine answers, but not now: wait and send the same again under the same token."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"the store asks to wait (code {code}): {message}")
        self.code = code
        self.message = message


class PermanentStoreError(CallmeterError):
    """The engine refused; the same statement will be refused again. ``code`` is ClickHouse's."""

    exit_code = 73

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"the store refused (code {code}): {message}")
        self.code = code
        self.message = message


class Result(NamedTuple):
    """Names and rows of an answer. Times are aware datetimes in UTC, decimals ``Decimal``.

    Without rows the names may be missing too: chDB sends none.
    """

    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]

    def dicts(self) -> list[dict[str, Any]]:
        """The rows as dictionaries by column name."""
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]


class Store(Protocol):
    """A ClickHouse, in this process or behind HTTP.

    Every method blocks until the engine has answered and may be called from any thread; calls of
    one store may run one after the other, so an asyncio program calls it through
    ``asyncio.to_thread``. After ``close`` every call raises ``PermanentStoreError``. Errors are
    those of the module's docstring, and none of them carries a secret.

    Values reach the engine as bound parameters only: ``{name:Type}`` in the SQL, ``name`` in
    ``params``. A store never formats a value into SQL, and refuses a parameter that the SQL does
    not name.
    """

    embedded: bool  # the engine is in this process
    replicated: bool  # tables must be Replicated*MergeTree (every real server)
    cluster: str | None  # ON CLUSTER name, None for a single node
    sharding: Sharding | None  # which of several shards this is, None for a store that is whole
    name: str  # for people, without secrets

    def command(
        self,
        sql: str,
        params: Mapping[str, Any] | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        """Run one statement that returns no rows. When it returns, the engine has done it."""
        ...

    def query(
        self,
        sql: str,
        params: Mapping[str, Any] | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> Result:
        """Run one SELECT and return all its rows."""
        ...

    def query_bytes(
        self,
        sql: str,
        fmt: str,
        params: Mapping[str, Any] | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> bytes:
        """Run one SELECT and return the engine's own encoding of its rows (Arrow, Parquet, …)."""
        ...

    def query_file(
        self,
        sql: str,
        fmt: str,
        path: Path,
        params: Mapping[str, Any] | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        """Run one SELECT and let the engine's encoding of its rows stream into a new file.

        ``OSError`` if it cannot be written; after any error the file may be there in part.
        """
        ...

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
        """Insert one block with ``INSERT_SETTINGS``; when it returns the rows are in the tables.

        With a ``token`` the same call may be made again after any error, in this or a later
        process, and counts once in the table and in every view's target within the deduplication
        window.
        Without one an HTTP client may re-send on a broken connection: rows at least once.
        """
        ...

    def close(self) -> None:
        """Let go of the engine, the connection and the directory. Calling it twice is fine."""
        ...
