"""Which store a partition's writer sees."""

from __future__ import annotations

import pytest

from callmeter_sinks.clickhouse.shards import Shards
from callmeter_sinks.shard_source import ShardSource
from callmeter_sinks.sink import Sink
from support.fake_store import FakeSource, FakeStore
from support.metered import MeteredStream

LOG = "019a0000-0000-7000-8000-00000000000a"


def filled(partitions: int) -> FakeSource:
    source = FakeSource(LOG, partitions)
    for partition in range(partitions):
        source.append(partition, MeteredStream(LOG, partition).checkpoint())
    return source


@pytest.mark.parametrize("number", [1, 2, 3])
def test_rows_and_books_of_a_partition_are_on_its_shard_alone(number: int) -> None:
    stores = [FakeStore() for _ in range(number)]
    stats = Sink(Shards(stores), filled(7)).drain()
    assert stats.inserts == 7
    for index, store in enumerate(stores):
        theirs = {p for p in range(7) if p % number == index}
        assert {partition for partition, *_ in store.landed} == theirs
        for table in ("sink_claims", "sink_intents"):
            assert {row["partition"] for row in store.tables[table]} == theirs


def test_the_source_of_a_shard_gives_its_partitions_alone() -> None:
    source = filled(5)
    shards = [ShardSource(source, 2, index) for index in range(2)]
    assert [sorted(shard.assignment()) for shard in shards] == [[0, 2, 4], [1, 3]]
    store = FakeStore()
    Sink(store, shards[1]).drain()
    assert {partition for partition, *_ in store.landed} == {1, 3}
