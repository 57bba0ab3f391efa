"""Stores for tests: a migrated chDB, and one whose rows the test wrote itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from callmeter.log.record import LogRecord
from callmeter_sinks.clickhouse.chdb_store import ChdbStore
from callmeter_sinks.clickhouse.migrate import migrate
from callmeter_sinks.clickhouse.store import Store
from callmeter_sinks.rows import LANDING_COLUMNS, landing_block, parse


@contextmanager
def migrated_chdb(path: Path) -> Iterator[ChdbStore]:
    """An open chDB with every table. One a process at a time: module-scoped fixtures hold it."""
    store = ChdbStore(path)
    try:
        migrate(store)
        yield store
    finally:
        store.close()


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
