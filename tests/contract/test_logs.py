"""One suite over both logs behind ``LogAppender``: what the collector may rely on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from callmeter.errors import UsageError
from callmeter.log.kafka_admin import apply_topics
from callmeter.log.kafka_appender import KafkaAppender
from callmeter.log.kafka_settings import KafkaSettings
from callmeter.log.kafka_state import open_partition
from callmeter.log.partitioner import partition_for
from callmeter.log.record import Appended, LogAppender, LogRecord, NewRecord
from callmeter.log.sqlite_appender import SqliteAppender
from callmeter.log.sqlite_log import SqliteLog
from support.toy_step import toy_records

PARTITIONS = 4
Reader = Callable[[str, int], Awaitable[list[LogRecord]]]
Pair = tuple[LogAppender, Reader]


@pytest_asyncio.fixture(params=["sqlite", pytest.param("kafka", marks=pytest.mark.kafka)])
async def log(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Pair]:
    if request.param == "sqlite":
        opened = SqliteLog(tmp_path / "log.db", partitions=PARTITIONS)
        embedded = SqliteAppender(opened)

        async def read_sqlite(topic: str, partition: int) -> list[LogRecord]:
            return opened.read(topic, partition, 0, max_records=10**6)

        yield embedded, read_sqlite
        await embedded.close()
        opened.close()
        return
    broker = request.getfixturevalue("kafka")
    prefix = request.getfixturevalue("topic_prefix")
    settings = KafkaSettings.from_url(f"{broker.url}?prefix={prefix}", {})
    await apply_topics(settings, partitions=PARTITIONS)
    appender = await KafkaAppender.start(settings)

    async def read_kafka(topic: str, partition: int) -> list[LogRecord]:
        async with open_partition(settings, topic, partition) as reader:
            return [record async for record in reader.read(*await reader.offsets())]

    yield appender, read_kafka
    await appender.close()


async def test_the_log_has_an_id_and_its_number_of_partitions(log: Pair) -> None:
    appender, _ = log
    assert len(appender.log_id) == 36
    assert appender.partitions == PARTITIONS


async def test_offsets_run_from_0_and_records_come_back_as_they_went(log: Pair) -> None:
    appender, read = log
    records = toy_records(100)
    placed = await appender.append(records)
    for partition in range(PARTITIONS):
        pairs = zip(placed, records, strict=True)
        own = [(at.offset, record) for at, record in pairs if at.partition == partition]
        assert [offset for offset, _ in own] == list(range(len(own)))
        found = await read("events", partition)
        assert [(r.topic, r.partition, r.offset, r.key, r.value) for r in found] == [
            ("events", partition, offset, r.key, r.value) for offset, r in own
        ]


async def test_a_key_goes_where_murmur2_says_and_a_given_partition_wins(log: Pair) -> None:
    appender, _ = log
    keys = [b"source-%d" % n for n in range(40)]
    placed = await appender.append([NewRecord("events", key, b"x") for key in keys])
    assert [p.partition for p in placed] == [partition_for(key, PARTITIONS) for key in keys]
    given = await appender.append([NewRecord("events", keys[0], b"x", p) for p in (3, 0)])
    assert [p.partition for p in given] == [3, 0]
    assert [p.partition for p in await appender.append([NewRecord("budgets", b"b", b"{}")])] == [0]


async def test_concurrent_appends_keep_their_own_order(log: Pair) -> None:
    appender, read = log
    batches = [
        [NewRecord("events", b"k", b"%d:%d" % (n, i), 0) for i in range(5)] for n in range(20)
    ]
    placed = await asyncio.gather(*(appender.append(batch) for batch in batches))
    values = {r.offset: r.value for r in await read("events", 0)}
    assert sorted(values) == list(range(100))
    for batch, offsets in zip(batches, placed, strict=True):
        assert [values[p.offset] for p in offsets] == [r.value for r in batch]
        assert [p.offset for p in offsets] == sorted(p.offset for p in offsets)


async def test_appending_again_appends_again(log: Pair) -> None:
    appender, _ = log
    record = NewRecord("events", b"k", b"same", 1)
    assert await appender.append([record]) == [Appended(1, 0)]
    assert await appender.append([record]) == [Appended(1, 1)]
    assert await appender.append([]) == []


async def test_an_envelope_of_the_largest_size_fits(log: Pair) -> None:
    appender, read = log
    value = bytes(range(256)) * 1024
    await appender.append([NewRecord("events", b"k", value, 2)] * 3)
    assert [r.value for r in await read("events", 2)] == [value] * 3


async def test_what_cannot_be_placed_is_refused(log: Pair) -> None:
    appender, read = log
    for bad in (NewRecord("nothing", b"k", b"v", 0), NewRecord("events", None, b"v")):
        with pytest.raises(UsageError):
            await appender.append([NewRecord("events", b"k", b"good", 0), bad])
    assert await read("events", 0) == []
