"""Which shard a partition lies on: the rule, and the stores by shard.

Partition p of any topic lies, whole, on shard p mod S: its rows and rollups, its ledger, and the
sinks' books of it. So a partition is one store's, and exactly once stays what it is on one. To
read, a second database has a ``Distributed`` table for each table (``read_side``).
docs/decisions/0023-shards.md says why so.
"""

from __future__ import annotations

from collections.abc import Sequence

from callmeter_sinks.clickhouse.store import Store


def tables_in(store: Store) -> str:
    """The database with the tables themselves, as SQL: a read side has others of their names."""
    sharding = store.sharding
    if sharding is None or not sharding.reading:
        return "currentDatabase()"
    return f"'{sharding.database}'"  # an identifier, checked when the URL was read


class Shards:
    """One store for each shard, in order; a single store is all of its one shard."""

    def __init__(self, stores: Sequence[Store]) -> None:
        self.stores = tuple(stores)

    def __len__(self) -> int:
        return len(self.stores)

    def of(self, partition: int) -> Store:
        """The store that has this partition, of whichever topic."""
        return self.stores[partition % len(self.stores)]

    def close(self) -> None:
        for store in self.stores:
            store.close()
