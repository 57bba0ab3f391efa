"""Two shards in one chDB, read through the engine's own ``Distributed``.

The engine is given a cluster of two shards that are both itself, so it plans and runs distributed
statements as a server does, without a network. Each shard's tables lie in a database of their own;
what ``Distributed`` asks for is a view that takes the one or the other by ``shardNum()``, where on
servers the same name leads to another machine. ON CLUSTER is played: the statement is run on both.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from callmeter_sinks.clickhouse.chdb_store import ChdbStore
from callmeter_sinks.clickhouse.migrate import migrate
from callmeter_sinks.clickhouse.migrate_shards import migrate_shards
from callmeter_sinks.clickhouse.read_side import READ_SETTINGS, read_database
from callmeter_sinks.clickhouse.sharding import Sharding
from callmeter_sinks.clickhouse.shards import Shards
from callmeter_sinks.clickhouse.shim import ShimServer
from callmeter_sinks.clickhouse.shim_request import Request

CLUSTER = "two"
_READ_TABLE = re.compile(r"CREATE OR REPLACE TABLE `\w+_all`\.(\w+) ")
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
    """One database of an engine that is open already, as a store of its own.

    ``servers`` are the stores on which a statement with ON CLUSTER is run, one after the other.
    """

    def __init__(
        self,
        engine: _Engine,
        database: str,
        sharding: Sharding | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.path = engine.path
        self.database = database
        self.name = f"{engine.name}/{database}"
        self.sharding = sharding
        self.cluster = CLUSTER if sharding is not None else None
        self.servers: list[DatabaseStore] = []
        self._lock = engine.lock
        self._pid = os.getpid()
        # A handful of rows: threads would cost more than they bring.
        said = {"max_threads": "1", **(settings or {})}
        self._client = engine.client(database=database, settings=said)

    def command(
        self,
        sql: str,
        params: Mapping[str, Any] | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        everywhere = f" ON CLUSTER `{CLUSTER}`"
        if everywhere not in sql:
            super().command(sql, params, settings)
            return
        table = _READ_TABLE.match(sql)
        if table is not None:
            self.command(
                f"CREATE OR REPLACE VIEW {SHARDED}.{table[1]} AS {self._by_shard(table[1])}"
            )
            # With the columns of a table, as on servers, not of that view.
            sql = sql.replace(f" AS `{SHARDED}`.", f" AS `{DATABASES[0]}`.")
        # Each server makes its own read side; here they would make the same one. And what the
        # first shard's migration has made everywhere is not looked for everywhere once more.
        first = self is self.servers[0] and table is None
        for server in self.servers if first else [self]:
            server.command(sql.replace(everywhere, ""), params, settings)

    def _by_shard(self, table: str) -> str:
        """Columns by name: an asterisk leaves out those that are only computed."""
        names = self.query(
            "SELECT arrayStringConcat(groupArray(name), ', ') FROM system.columns "
            "WHERE database = {database:String} AND table = {table:String}",
            {"database": DATABASES[0], "table": table},
        ).rows[0][0]
        return " UNION ALL ".join(
            f"SELECT {names} FROM {database}.{table} WHERE shardNum() = {number}"
            for number, database in enumerate(DATABASES, 1)
        )

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
    """Both shards and their read side as ``callmeter migrate`` makes them, a whole store beside."""
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
        servers = [opened(n, Sharding(number, SHARDED, i)) for i, n in enumerate(DATABASES)]
        for server in servers:
            server.servers = servers
        migrate_shards(Shards(servers))
        reading = opened(read_database(SHARDED), Sharding(number, SHARDED), READ_SETTINGS)
        whole = opened("whole")
        migrate(whole)
        yield TwoShards(engine, Shards(servers), reading, whole)


@contextmanager
def served(two: TwoShards) -> Iterator[str]:
    """Both shards over HTTP, each at an address of its own; the URL that names them."""
    with ExitStack() as stack:
        addresses = []
        for database in DATABASES:
            shim = stack.enter_context(ShimServer(two.engine, writable=True))
            _lead(shim, {SHARDED: database})
            addresses.append(f"127.0.0.1:{shim.address[1]}")
        yield f"clickhouse://{','.join(addresses)}/{SHARDED}?cluster={CLUSTER}&replicated=no"


def _lead(shim: ShimServer, databases: Mapping[str, str]) -> None:
    """Have the name of a database lead to another, as it does on another machine."""
    engine = shim._engine
    run = engine.run

    def run_there(request: Request) -> tuple[bytes, bool]:
        asked = request.database or ""
        return run(replace(request, database=databases.get(asked, request.database)))

    engine.run = run_there  # type: ignore[method-assign]
