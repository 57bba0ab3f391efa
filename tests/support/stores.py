"""Stores for tests: a migrated chDB, and one whose rows the test wrote itself."""

from __future__ import annotations

import atexit
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from callmeter.log.record import LogRecord
from callmeter_sinks.clickhouse.chdb_store import ChdbStore
from callmeter_sinks.clickhouse.store import Store
from callmeter_sinks.rows import LANDING_COLUMNS, landing_block, parse

_MIGRATE = """
import sys
from pathlib import Path
from callmeter_sinks.clickhouse.chdb_store import ChdbStore
from callmeter_sinks.clickhouse.migrate import migrate
store = ChdbStore(Path(sys.argv[1]))
migrate(store)
store.close()
"""


@cache
def _template() -> Path:
    """A chDB with every table and no row, made once by a process of its own, and then at rest."""
    home = Path(tempfile.mkdtemp(prefix="callmeter-store-"))
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    subprocess.run([sys.executable, "-c", _MIGRATE, str(home / "store")], check=True)
    return home / "store"


def put_migrated(path: Path) -> None:
    """Put a chDB with every table there: a copy costs a tenth of the migrations."""
    shutil.copytree(_template(), path, symlinks=True)


@contextmanager
def migrated_chdb(path: Path) -> Iterator[ChdbStore]:
    """An open chDB with every table. One a process at a time: module-scoped fixtures hold it."""
    put_migrated(path)
    store = ChdbStore(path)
    try:
        yield store
    finally:
        store.close()


def empty(store: Store) -> None:
    """Take every row out of every table."""
    tables = store.query(
        "SELECT name FROM system.tables WHERE database = currentDatabase() "
        "AND engine LIKE '%MergeTree' AND name != 'schema_migrations'"
    ).rows
    for (name,) in tables:
        store.command(f"TRUNCATE TABLE `{name}` SYNC")


def land(
    store: Store,
    values: Iterable[bytes],
    *,
    partition: int = 0,
    at: int = 0,
    token: str | None = None,
) -> int:
    """Insert metered records as the sink does, in one insert; the next free metered offset."""
    records = [
        LogRecord("metered", partition, offset, 0, None, value)
        for offset, value in enumerate(values, at)
    ]
    block = landing_block("metered", partition, map(parse, records))
    store.insert_block("landing", LANDING_COLUMNS, block, token=token)
    return at + len(records)
