"""Reading several shards as one: a database of ``Distributed`` tables, and what opens it.

Local tables keep their names in the database of the URL; the read side, ``<database>_all``, has a
table of the same name for each that stores rows. So queries keep their text. What makes them mean
the same over shards is in ``READ_SETTINGS``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from callmeter.errors import ConfigError, UnreachableError
from callmeter_sinks.clickhouse.http_store import HttpStore
from callmeter_sinks.clickhouse.http_url import HttpUrl
from callmeter_sinks.clickhouse.sharding import Sharding
from callmeter_sinks.clickhouse.sql_files import SqlFile
from callmeter_sinks.clickhouse.store import PermanentStoreError

#: With every statement to the read side.
READ_SETTINGS: Mapping[str, str] = {
    # The right side of an IN or JOIN is asked of all shards once and sent to each; the engine's own
    # default refuses such statements, and `local` would look for partners on the same shard alone.
    "distributed_product_mode": "global",
    # A sum without a shard's part would be a wrong answer: whatever the server's profile says, a
    # question fails while a shard is away.
    "skip_unavailable_shards": "0",
    # The statements of one answer see the same replica of a shard, while it is there.
    "load_balancing": "in_order",
}
#: Tables that migrations keep beside those of the numbered files.
_KEPT = ("schema_migrations", "shards")
_UNKNOWN_DATABASE = 81


def read_database(database: str) -> str:
    """The name of the database that reads all shards' ``database``."""
    return f"{database}_all"


def open_read_side(shards: Sequence[HttpUrl]) -> HttpStore:
    """Over the first shard that answers, which asks the others.

    ``ConfigError`` if there is no read side yet, and the errors of ``HttpStore``.
    """
    sharding = Sharding(len(shards), shards[0].database)
    away = UnreachableError("the store's URL names no shard")
    for url in shards:
        there = replace(url, database=read_database(url.database))
        try:
            return HttpStore(there, sharding=sharding, settings=READ_SETTINGS)
        except UnreachableError as exc:
            away = exc
        except PermanentStoreError as exc:
            if exc.code != _UNKNOWN_DATABASE:
                raise
            raise ConfigError(
                f"{there.display()}: there is no database to read all shards: "
                "run `callmeter migrate`"
            ) from exc
    raise away


def read_tables(files: Iterable[SqlFile]) -> list[str]:
    """The tables that the read side has: those that store rows."""
    return [*_KEPT, *(table for file in files for table in file.stored)]


def read_statements(
    tables: Iterable[str], *, database: str, cluster: str, on_cluster: bool = True
) -> list[str]:
    """Statements that make the read side of ``database``, each of which may run twice.

    A ``Distributed`` table holds nothing, so it is made anew with its local table's columns as they
    are now. It has no sharding key: an insert into it is refused by the engine.
    """
    into = read_database(database)
    everywhere = f" ON CLUSTER `{cluster}`" if on_cluster else ""
    return [
        f"CREATE DATABASE IF NOT EXISTS `{into}`{everywhere}",
        *(
            f"CREATE OR REPLACE TABLE `{into}`.{table}{everywhere} AS `{database}`.{table} "
            f"ENGINE = Distributed(`{cluster}`, `{database}`, {table})"
            for table in tables
        ),
    ]
