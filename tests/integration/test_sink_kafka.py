"""The sink over a real Kafka: committed records, partitions by group, progress by ClickHouse."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from callmeter.errors import UnreachableError
from callmeter.log.kafka_admin import AppliedTopics, apply_topics
from callmeter.log.kafka_consumer import KafkaGroupReader
from callmeter.log.kafka_settings import KafkaSettings
from callmeter.log.kafka_transaction import TransactionWriter
from callmeter.log.record import NewRecord
from callmeter_sinks.clickhouse.store import Store
from callmeter_sinks.ranges import RangeLimits
from callmeter_sinks.sink import Sink
from callmeter_sinks.writer import PartitionWriter
from support.kafka_server import Broker
from support.metered import MeteredStream, Truth
from support.stored import expected, stored
from support.stores import migrated_chdb

pytestmark = pytest.mark.kafka

PARTITIONS = 3
SMALL = RangeLimits(max_events=60, linger_s=0.05)
#: Short, for it is with a fifth of it that a member hears of another.
SESSION_S = 2.0


@pytest.fixture
def settings(quick_kafka: Broker, topic_prefix: str) -> KafkaSettings:
    return KafkaSettings.from_url(f"{quick_kafka.url}?prefix={topic_prefix}", {})


@pytest.fixture
def topics(settings: KafkaSettings) -> AppliedTopics:
    return asyncio.run(apply_topics(settings, partitions=PARTITIONS))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with migrated_chdb(tmp_path / "store") as opened:
        yield opened


def reader(settings: KafkaSettings, topics: AppliedTopics) -> KafkaGroupReader:
    return KafkaGroupReader(
        settings, "metered", group="sink", log_id=topics.log_id, session_s=SESSION_S
    )


def write(settings: KafkaSettings, checkpoints: Sequence[tuple[int, list[bytes]]]) -> None:
    """Each checkpoint in a transaction of its own, as the meter writes it."""

    async def commit() -> None:
        for partition, values in checkpoints:
            writer = TransactionWriter(settings, f"test-{partition}", partitions=PARTITIONS)
            await writer.start()
            await writer.commit([NewRecord("metered", b"s", v, partition) for v in values])
            await writer.stop()

    asyncio.run(commit())


def abort(settings: KafkaSettings, partition: int, values: Sequence[bytes]) -> None:
    """Records of a transaction that never commits: fenced by the next owner of its id."""

    async def leave_open() -> None:
        first = TransactionWriter(settings, f"test-{partition}", partitions=PARTITIONS)
        await first.start()
        producer = first._producer
        await producer.begin_transaction()
        topic = f"{settings.prefix}.metered"
        for value in values:
            await producer.send_and_wait(topic, value=value, key=b"s", partition=partition)
        await producer.abort_transaction()
        await first.stop()

    asyncio.run(leave_open())


def total(streams: Sequence[MeteredStream]) -> Truth:
    truth = Truth()
    for stream in streams:
        truth.add(stream.truth)
    return truth


def test_drains_committed_records_and_nothing_else(
    settings: KafkaSettings, topics: AppliedTopics, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PartitionWriter, "rest", lambda *_: None)  # as if it were killed
    streams = [MeteredStream(topics.log_id, partition) for partition in range(PARTITIONS)]
    for _ in range(3):
        for stream in streams:
            abort(settings, stream.partition, [b"never committed\n"] * 3)
            write(settings, [(stream.partition, stream.checkpoint(envelopes=4, parts=2))])
    abort(settings, 0, [b"an aborted end\n"])
    for rebuilds in (0, PARTITIONS):
        source = reader(settings, topics)
        try:
            stats = Sink(store, source, limits=SMALL).drain()
        finally:
            source.close()
        assert stats.rebuilds == rebuilds
        assert stored(store) == expected(total(streams))


def test_a_second_sink_of_the_group_takes_partitions_over_and_gives_them_back(
    settings: KafkaSettings, topics: AppliedTopics, store: Store
) -> None:
    streams = [MeteredStream(topics.log_id, p, months=1) for p in range(PARTITIONS)]
    done = threading.Event()

    def feed() -> None:
        while not done.is_set():
            for stream in streams:
                write(settings, [(stream.partition, stream.checkpoint(envelopes=5))])
            done.wait(0.3)  # as a meter's checkpoints come

    feeder = threading.Thread(target=feed)
    sources, sinks, threads = [], [], []
    try:
        for _ in range(2):
            sources.append(reader(settings, topics))
            sinks.append(Sink(store, sources[-1], limits=SMALL))
            threads.append(threading.Thread(target=sinks[-1].run))
        threads[0].start()
        feeder.start()
        until(lambda: sinks[0].stats.inserts > 3)
        threads[1].start()
        until(lambda: sinks[1].stats.inserts > 3)
        sinks[1].stop()
        threads[1].join(60)
        sources[1].close()
        until(lambda: len(sources[0].assignment()) == PARTITIONS)
        before = sinks[0].stats.inserts
        until(lambda: sinks[0].stats.inserts > before + 3)
    finally:
        done.set()
        if feeder.is_alive():
            feeder.join(60)
        for sink in sinks:
            sink.stop()
        for thread in threads:
            if thread.is_alive():
                thread.join(60)
        for source in sources:
            source.close()
    source = reader(settings, topics)
    try:
        Sink(store, source).drain()  # what is left may go in large ranges
    finally:
        source.close()
    assert stored(store) == expected(total(streams))
    claims = store.query("SELECT partition, max(generation) FROM sink_claims GROUP BY 1").rows
    assert max(generation for _, generation in claims) >= 3


def test_a_drain_reads_every_partition_whatever_the_group_holds(
    settings: KafkaSettings, topics: AppliedTopics, store: Store
) -> None:
    streams = [MeteredStream(topics.log_id, partition) for partition in range(PARTITIONS)]
    for stream in streams:
        write(settings, [(stream.partition, stream.checkpoint(envelopes=4))])
    # A member that holds partitions and reads none, as one does that died while it was joining.
    member = reader(settings, topics)
    until(lambda: len(member.assignment()) == PARTITIONS)
    source = KafkaGroupReader(
        settings, "metered", group="sink", log_id=topics.log_id, whole=True, session_s=SESSION_S
    )
    try:
        Sink(store, source, limits=SMALL).drain()
    finally:
        source.close()
        member.close()
    assert stored(store) == expected(total(streams))


def test_offsets_are_committed_for_displays_of_lag(
    settings: KafkaSettings, topics: AppliedTopics, store: Store
) -> None:
    stream = MeteredStream(topics.log_id, 1)
    write(settings, [(1, stream.checkpoint())])
    source = reader(settings, topics)
    try:
        Sink(store, source, limits=SMALL).drain()
        tp = next(tp for tp in source._client.assignment() if tp.partition == 1)

        async def committed() -> int | None:
            return await source._client.committed(tp)

        until(lambda: source._call(committed()) is not None)
        assert source._call(committed()) == 4  # three envelopes and their deltas
    finally:
        source.close()


def test_no_kafka_is_one_clear_error() -> None:
    settings = KafkaSettings.from_url("kafka://127.0.0.1:1", {})
    with pytest.raises(UnreachableError, match=r"kafka://127\.0\.0\.1:1 is not reachable"):
        KafkaGroupReader(settings, "metered", group="sink", log_id="x")


def until(condition: object) -> None:
    """Wait for something another thread brings about; a test that waits too long has failed."""
    assert callable(condition)
    deadline_s = time.monotonic() + 90
    while not condition():
        assert time.monotonic() < deadline_s, "it never came"
        time.sleep(0.02)
