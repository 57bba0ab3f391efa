"""What each shard has written down of itself, and the refusal of a URL that does not fit it.

The rule p mod S must not change over a filled store, so the first migrate writes into each shard
which one it is and of how many. Whoever opens a store compares.
"""

from __future__ import annotations

from callmeter.errors import ConfigError
from callmeter_sinks.clickhouse.sharding import Sharding
from callmeter_sinks.clickhouse.shards import Shards
from callmeter_sinks.clickhouse.sql_files import Deployment, render
from callmeter_sinks.clickhouse.store import Store

TABLE = "shards"
_CREATE = """CREATE TABLE IF NOT EXISTS shards ${CL} (
  shard UInt16,
  of UInt16,
  at DateTime64(6, 'UTC') DEFAULT now64(6, 'UTC')
) ENGINE = ${R}MergeTree ORDER BY shard"""
_CONSISTENT = {"select_sequential_consistency": "1"}
_SAME_URL = "give the addresses with which it was first migrated, in the same order"


def statement(deployment: Deployment) -> str:
    """What makes the table."""
    return render(_CREATE, deployment)


def note_shards(shards: Shards) -> None:
    """Write into every shard which one it is; nothing where it stands already."""
    for store in shards.stores:
        store.command(statement(Deployment(store.replicated, store.cluster)))
        sharding = store.sharding
        if sharding is not None and not _noted(store):
            store.command(
                "INSERT INTO shards (shard, of) SELECT {shard:UInt16}, {of:UInt16}",
                {"shard": sharding.index, "of": sharding.shards},
            )


def check_opened(store: Store) -> None:
    """What is known when a store is opened: a URL of fewer or other shards would answer in part.

    One question, once. A plain server, which is the shim of an embedded store, is asked nothing.
    """
    if store.cluster is None and not store.replicated:
        return
    rows = store.query(
        "SELECT name FROM system.tables WHERE database = currentDatabase() "
        "AND name IN ('shards', 'schema_migrations')"
    ).rows
    there = {name for (name,) in rows}
    # Every shard is noted before any has a schema.
    check_sharding(store, noted=TABLE in there, filled="schema_migrations" in there)


def check_sharding(store: Store, *, noted: bool, filled: bool = True) -> None:
    """That the store is what its URL says; ``ConfigError`` in one line that says what to do.

    ``noted`` is whether it has the table of this module, ``filled`` whether it has a schema.
    """
    found = _noted(store) if noted else []
    sharding = store.sharding
    if sharding is None:
        if found:
            raise ConfigError(
                f"{store.name} is shard {found[0][0] + 1} of {found[0][1]}: name all shards, in "
                "order: clickhouse://host1,host2/db?cluster=NAME"
            )
        return
    if not found:
        if filled:
            raise ConfigError(
                f"{store.name} was filled as one store, and is now called one of "
                f"{sharding.shards} shards: that cannot change over a filled store; give its "
                "address alone, or empty databases"
            )
        return
    if sharding.reading:
        _check_all(store, sharding, found)
    elif found != [(sharding.index, sharding.shards)]:
        raise ConfigError(
            f"{store.name} is shard {found[0][0] + 1} of {found[0][1]}, and the URL calls it shard "
            f"{(sharding.index or 0) + 1} of {sharding.shards}: {_SAME_URL}"
        )


def _check_all(store: Store, sharding: Sharding, found: list[tuple[int, int]]) -> None:
    """The read side must reach each shard, and each once: or sums are short, or counted twice."""
    of = found[0][1]
    if of != sharding.shards:
        raise ConfigError(
            f"{store.name} has {of} shards, and the URL names {sharding.shards}: {_SAME_URL}"
        )
    if sorted(found) != [(index, of) for index in range(of)]:
        reached = ", ".join(str(index + 1) for index, _ in sorted(found))
        raise ConfigError(
            f"cluster {store.cluster} leads to the shards {reached}, not to each of 1 to {of} "
            "once: mend remote_servers of the ClickHouse servers"
        )


def _noted(store: Store) -> list[tuple[int, int]]:
    """(index, number of shards) of the shard, or of each that the read side reaches."""
    reading = store.sharding is not None and store.sharding.reading
    place = "_shard_num" if reading else "0"
    rows = store.query(
        f"SELECT DISTINCT {place} AS place, shard, of FROM shards ORDER BY place, shard",  # noqa: S608
        settings=_CONSISTENT if store.replicated else None,
    ).rows
    return [(int(shard), int(of)) for _, shard, of in rows]
