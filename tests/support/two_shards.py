"""Two shards in one chDB, read through the engine's own ``Distributed``.

The engine is given a cluster of two shards that are both itself, so it plans and runs distributed
statements as a server does, without a network. Each shard's tables lie in a database of their own;
what ``Distributed`` asks for is a view that takes the one or the other by ``shardNum()``: that view
is all that differs from servers, where the same name leads to another machine.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from callmeter_sinks.clickhouse import shard_book
from callmeter_sinks.clickhouse.chdb_store import ChdbStore
from callmeter_sinks.clickhouse.migrate import migrate
from callmeter_sinks.clickhouse.read_side import (
    READ_SETTINGS,
    read_database,
    read_statements,
    read_tables,
)
from callmeter_sinks.clickhouse.sharding import Sharding, Shards
from callmeter_sinks.clickhouse.sql_files import shipped

CLUSTER = "two"
#: By shard; ``SHARDED`` has the views that take one of them.
DATABASES = ("shard0", "shard1")
SHARDED = "sharded"
_REPLICA = "<shard><replica><host>127.0.0.1</host><port>9000</port></replica></shard>"
# An address is the engine itself if its port is the configured one; nothing listens there.
_CONFIG = f"""<clickhouse><tcp_port>9000</tcp_port>
<remote_servers><{CLUSTER}>{_REPLICA * len(DATABASES)}</{CLUSTER}></remote_servers></clickhouse>"""


class _Engine(ChdbStore):
    """chDB with a cluster."""

    def __init__(self, path: Path) -> None:
        self._config = path.parent / f"{path.name}.xml"
        self._config.write_text(_CONFIG)
        super().__init__(path)

    def client(self, **options: Any) -> Any:
        import clickhouse_connect

        return clickhouse_connect.get_client(
            interface="chdb", path=str(self.path), tz_mode="aware",
            chdb_options={"config-file": str(self._config)}, **options,
        )  # fmt: skip

    def _connect(self) -> Any:
        return self.client()

    @property
    def lock(self) -> Any:
        return self._lock


class DatabaseStore(ChdbStore):
    """One database of an engine that is open already, as a store of its own."""

    def __init__(
        self,
        engine: _Engine,
        database: str,
        sharding: Sharding | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.path = engine.path
        self.name = f"{engine.name}/{database}"
        self.sharding = sharding
        self._lock = engine.lock
        self._pid = os.getpid()
        self._client = engine.client(database=database, settings=dict(settings or {}))

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None


@dataclass
class TwoShards:
    """``whole`` is a store that is not sharded, in the same engine, to compare with."""

    engine: _Engine
    shards: Shards
    reading: DatabaseStore
    whole: DatabaseStore


@contextmanager
def two_shards(path: Path) -> Iterator[TwoShards]:
    """Both shards migrated, their read side made, and a whole store beside them."""
    with ExitStack() as stack:
        engine = _Engine(path)
        stack.callback(engine.close)

        def opened(database: str, *options: Any) -> DatabaseStore:
            store = DatabaseStore(engine, database, *options)
            stack.callback(store.close)
            return store

        for database in (*DATABASES, SHARDED, "whole"):
            engine.command(f"CREATE DATABASE {database}")
        number = len(DATABASES)
        shards = Shards([opened(n, Sharding(number, n, i)) for i, n in enumerate(DATABASES)])
        shard_book.note_shards(shards)
        for store in shards.stores:
            migrate(store)
        for statement in read_side_statements(engine):
            engine.command(statement)
        reading = opened(read_database(SHARDED), Sharding(number, DATABASES[0]), READ_SETTINGS)
        reading.cluster = CLUSTER
        whole = opened("whole")
        migrate(whole)
        yield TwoShards(engine, shards, reading, whole)


def read_side_statements(engine: ChdbStore) -> Iterator[str]:
    """The views by shard, then what the product renders over them."""
    tables = read_tables(shipped())
    for table in tables:
        names = engine.query(  # by name: an asterisk leaves out columns that are only computed
            "SELECT arrayStringConcat(groupArray(name), ', ') FROM system.columns "
            "WHERE database = {database:String} AND table = {table:String}",
            {"database": DATABASES[0], "table": table},
        ).rows[0][0]
        parts = " UNION ALL ".join(
            f"SELECT {names} FROM {database}.{table} WHERE shardNum() = {number}"
            for number, database in enumerate(DATABASES, 1)
        )
        yield f"CREATE VIEW {SHARDED}.{table} AS {parts}"
    columns = f" AS `{DATABASES[0]}`."  # of a table, as on servers, not of the view
    for statement in read_statements(tables, database=SHARDED, cluster=CLUSTER, on_cluster=False):
        yield statement.replace(f" AS `{SHARDED}`.", columns)
