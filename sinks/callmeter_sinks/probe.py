"""Which record the store refuses: each tried alone against views that store nothing.

An insert goes through some twenty views; when one of them refuses, the error names no record. So
the landing table, the tables behind it and every view are cloned with engine Null, one record after
the other is inserted there, and the clones are dropped again. What a clone cannot show is a refusal
by storage itself (a disk, a part, a right): then no record is found guilty, and the caller stops.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from callmeter_sinks.clickhouse.store import PermanentStoreError, Store
from callmeter_sinks.rows import Metered
from callmeter_sinks.streams import Stream

_VIEWS = """
SELECT name, create_table_query, as_select FROM system.tables
WHERE database = currentDatabase() AND engine = 'MaterializedView' ORDER BY name
"""
_NAME = r"(?:`?\w+`?\.)?`?(\w+)`?"
_TARGET = re.compile(rf"\sTO\s+{_NAME}")
_SOURCE = re.compile(rf"\bFROM\s+{_NAME}(?=[\s),]|$)")


class _View(NamedTuple):
    name: str
    source: str
    target: str
    select: str


def find_refused(
    store: Store, stream: Stream, partition: int, records: Sequence[Metered]
) -> list[tuple[Metered, PermanentStoreError]]:
    """The records that the views refuse when they come alone, each with the store's answer."""
    refused = []
    with _clones(store, stream.landing) as landing:
        for record in records:
            block = stream.block(stream.topic, partition, (record,))
            try:
                if block:
                    store.insert_block(landing, stream.columns, block)
            except PermanentStoreError as exc:
                refused.append((record, exc))
    return refused


@contextmanager
def _clones(store: Store, landing: str) -> Iterator[str]:
    """Null copies of a landing table and all that hangs on it; yields the copy's name."""
    prefix = f"probe_{uuid.uuid4().hex[:12]}_"
    cluster = f" ON CLUSTER `{store.cluster}`" if store.cluster else ""
    views = _behind(landing, _views(store))
    tables = {landing, *(view.target for view in views)}
    try:
        for table in sorted(tables):
            store.command(f"CREATE TABLE {prefix}{table}{cluster} AS {table} ENGINE = Null")
        for view in views:
            select = _SOURCE.sub(lambda found: f"FROM {prefix}{found[1]}", view.select)
            store.command(
                f"CREATE MATERIALIZED VIEW {prefix}{view.name}{cluster} "
                f"TO {prefix}{view.target} AS {select}"
            )
        yield f"{prefix}{landing}"
    finally:
        for name in [*(view.name for view in reversed(views)), *sorted(tables)]:
            store.command(f"DROP TABLE IF EXISTS {prefix}{name}{cluster}")


def _views(store: Store) -> list[_View]:
    views = []
    for name, create, select in store.query(_VIEWS).rows:
        target, source = _TARGET.search(create), _SOURCE.search(select)
        if target and source and not name.startswith("probe_"):
            views.append(_View(name, source[1], target[1], select))
    return views


def _behind(table: str, views: Sequence[_View]) -> list[_View]:
    """The views fed by a table, directly or through the tables they feed, nearest first."""
    found: list[_View] = []
    sources = [table]
    while sources:
        source = sources.pop(0)
        fed = [view for view in views if view.source == source]
        found += fed
        sources += [view.target for view in fed if view.target not in sources]
    return found
