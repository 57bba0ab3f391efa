"""The SQLite file of a log: made, opened and checked; SQLite's errors in callmeter's words.

Layout. ``streams`` holds one row per (topic, partition) with the counter its offsets come from, so
an offset is never used twice, whatever is pruned. ``records`` is clustered by ``stream << 40 |
offset``: a partition is one run of the b-tree. ``latest`` points from a key of a compacted topic to
its newest record; the older one is deleted in the transaction that brings the newer.
"""

from __future__ import annotations

import os
import sqlite3
import uuid
from pathlib import Path

from callmeter.errors import CallmeterError, CannotWriteError, ConfigError, NewerSchemaError
from callmeter.schema.topics import TOPICS

APPLICATION_ID = 0x434D4C47  # "CMLG"
FORMAT_VERSION = 1

_SCHEMA = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE streams (
    id INTEGER PRIMARY KEY, topic TEXT NOT NULL, part INTEGER NOT NULL,
    next INTEGER NOT NULL DEFAULT 0, UNIQUE (topic, part)
);
CREATE TABLE records (id INTEGER PRIMARY KEY, ts INTEGER NOT NULL, key BLOB, value BLOB);
CREATE TABLE latest (
    stream INTEGER NOT NULL, key BLOB NOT NULL, id INTEGER NOT NULL, PRIMARY KEY (stream, key)
) WITHOUT ROWID;
"""


def connect(path: Path, *, busy_s: float, max_bytes: int | None = None) -> sqlite3.Connection:
    """A connection in autocommit mode with the pragmas of a log; durable once a COMMIT returns."""
    connection = sqlite3.connect(
        path, timeout=busy_s, isolation_level=None, check_same_thread=False, cached_statements=64
    )
    # WAL with FULL syncs the log at each commit. fullfsync is macOS's only real fsync, elsewhere
    # without effect. The limit trims a write-ahead log that a burst has blown up.
    for pragma in ("synchronous=FULL", "fullfsync=ON", f"journal_size_limit={64 * 2**20}"):
        connection.execute(f"PRAGMA {pragma}")
    if max_bytes is not None:
        page_size = connection.execute("PRAGMA page_size").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count={max(1, max_bytes // page_size)}")
    return connection


def prepare(path: Path, partitions: int, *, busy_s: float) -> tuple[str, int]:
    """Makes the log if there is none, and checks it: (log id, partitions).

    Opening twice at once is safe: whoever comes second finds a log. ``ConfigError`` if the file is
    something else or has another number of partitions, ``NewerSchemaError`` if it was written by a
    newer callmeter, ``CannotWriteError`` if it cannot be made or opened.
    """
    if partitions < 1:
        raise ConfigError("a log has at least one partition")
    if not path.parent.is_dir():
        raise CannotWriteError(f"{path.parent} is not a directory")
    try:
        connection = connect(path, busy_s=busy_s)
        try:
            return _prepare(connection, path, partitions)
        finally:
            connection.close()
    except sqlite3.Error as exc:
        raise translated(exc, path) from exc


def _prepare(connection: sqlite3.Connection, path: Path, partitions: int) -> tuple[str, int]:
    if _is_empty(connection):
        # Neither can be changed inside a transaction. 16 KiB pages: an envelope spans a few, not
        # many.
        connection.execute("PRAGMA page_size=16384")
        connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("BEGIN IMMEDIATE")
    try:
        if _is_empty(connection):
            for statement in _SCHEMA.split(";"):
                connection.execute(statement)
            connection.executemany(
                "INSERT INTO meta VALUES (?, ?)",
                (("log_id", str(uuid.uuid4())), ("partitions", str(partitions))),
            )
            connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version={FORMAT_VERSION}")
        _check_format(connection, path)
        meta = dict(connection.execute("SELECT name, value FROM meta"))
        count = int(meta["partitions"])
        if count != partitions:
            raise ConfigError(
                f"{path} has {count} partitions, not {partitions}: a log keeps its number for life"
            )
        # A topic that a later version added to the registry gets its streams here.
        connection.executemany(
            "INSERT OR IGNORE INTO streams (topic, part) VALUES (?, ?)",
            [(t.name, p) for t in TOPICS for p in range(t.partitions or count)],
        )
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    _sync_directory(path.parent)
    return meta["log_id"], count


def _is_empty(connection: sqlite3.Connection) -> bool:
    count: int = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    return count == 0


def _check_format(connection: sqlite3.Connection, path: Path) -> None:
    if connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
        raise ConfigError(f"{path} is a SQLite database, but not a callmeter log")
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > FORMAT_VERSION:
        raise NewerSchemaError(
            f"{path} was written by a newer callmeter (log format {version}, this one reads "
            f"{FORMAT_VERSION}): upgrade callmeter"
        )


def _sync_directory(directory: Path) -> None:
    # The name of a file just made is durable only when its directory is.
    fd = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def translated(exc: sqlite3.Error, path: Path) -> CallmeterError:
    """What a SQLite error means to whoever runs the log, in one line."""
    code = getattr(exc, "sqlite_errorcode", None)
    primary = code & 0xFF if isinstance(code, int) else None
    if primary == sqlite3.SQLITE_NOTADB:
        return ConfigError(f"{path} is not a callmeter log: it is no SQLite database")
    if primary == sqlite3.SQLITE_CORRUPT:
        return ConfigError(f"{path} is damaged ({exc}): restore it from a copy")
    if primary == sqlite3.SQLITE_FULL:
        return CannotWriteError(f"{path} is full ({exc}): free space or prune the log")
    if primary == sqlite3.SQLITE_BUSY:
        return CannotWriteError(f"{path} is locked by another process: stop that one")
    return CannotWriteError(f"{path} cannot be used: {exc}")
