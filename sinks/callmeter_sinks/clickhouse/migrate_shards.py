"""Brings every shard, and then their read side, to this version's schema.

    note       which shard each is, before anything else is made
    migrate    the numbered files, through each shard in turn: ON CLUSTER makes the tables
               everywhere, and what fills them runs where its rows are
    read side  a ``Distributed`` table for each table that stores rows

Every statement may run twice, so the way on after a failure is to run it again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from callmeter.errors import ConfigError
from callmeter_sinks.clickhouse import shard_book
from callmeter_sinks.clickhouse.migrate import MigrationReport, migrate
from callmeter_sinks.clickhouse.read_side import read_statements, read_tables
from callmeter_sinks.clickhouse.retention import apply_retention
from callmeter_sinks.clickhouse.shards import Shards
from callmeter_sinks.clickhouse.sql_files import shipped


@dataclass(frozen=True, slots=True)
class ShardsReport:
    """One report a shard, in order, and the statements that make the read side."""

    shards: Sequence[MigrationReport]
    read_side: Sequence[str]
    retention: Sequence[str] = field(default=())


def migrate_shards(
    shards: Shards,
    *,
    dry_run: bool = False,
    plain_server: bool = False,
    retention: Mapping[str, int | None] | None = None,
) -> ShardsReport:
    """Migrate stores that ``open_shards`` has opened; with ``dry_run`` only say what would be done.

    Raises what ``migrate`` does, of the first shard that refuses, and ``ConfigError`` for stores
    that are other shards than the URL says.
    """
    reports = [migrate(each, dry_run=True, plain_server=plain_server) for each in shards.stores]
    first = shards.stores[0]
    if first.cluster is None or first.sharding is None:
        raise ConfigError("several shards need the name of their cluster")
    statements = read_statements(
        read_tables(shipped()), database=first.sharding.database, cluster=first.cluster
    )
    if dry_run:
        return ShardsReport(reports, statements)
    shard_book.note_shards(shards)
    reports = [migrate(each, plain_server=plain_server) for each in shards.stores]
    # Each with ON CLUSTER: after the first the others find it done.
    kept = [name for store in shards.stores for name in apply_retention(store, retention)]
    for statement in statements:
        first.command(statement)
    begun = [name for report in reports for name in report.retention]
    return ShardsReport(reports, statements, list(dict.fromkeys([*begun, *kept])))
