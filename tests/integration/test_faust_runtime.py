"""The Faust runtime over a real Kafka: ends, failures, holes, healing, state of another log."""

from __future__ import annotations

import asyncio
import gc
from pathlib import Path

import orjson
import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient

from callmeter.clock import SystemClock
from callmeter.errors import ConfigError, UnreachableError
from callmeter.log.kafka_state import publish, read_table
from callmeter.log.kafka_transaction import FencedError, TransactionWriter
from callmeter.log.record import NewRecord
from callmeter_processors.runtime.exact import ExactPartition, Stage
from callmeter_processors.runtime.stats import RuntimeStats
from callmeter_processors.runtime.worker import run_worker
from support.kafka_server import Broker
from support.toy_kafka import ToyKafka, until
from support.toy_step import POISON, ToyStep, toy_records, toy_total
from support.toy_worker import end_worker, start_worker

pytestmark = pytest.mark.kafka


@pytest.fixture
def toy(kafka: Broker, topic_prefix: str) -> ToyKafka:
    return ToyKafka.create(kafka.url, topic_prefix)


def run_to_the_end(toy: ToyKafka, log_file: Path, **options: object) -> None:
    process = start_worker(toy.url, log_file, session_timeout_s=6, **options)
    try:
        # A process that has not come so far has no signal handlers yet.
        assigned = b"%d callmeter_processors.runtime.faust_app partitions assigned" % process.pid
        until(
            lambda: (
                process.poll() is not None
                or (assigned in log_file.read_bytes() and toy.caught_up())
            ),
            log_file,
        )
        assert process.poll() is None, log_file.read_text()[-3000:]
    finally:
        code = end_worker(process)
    assert code == 0


def run_until_it_fails(toy: ToyKafka, log_file: Path) -> str:
    process = start_worker(toy.url, log_file, session_timeout_s=6)
    try:
        until(lambda: process.poll() is not None, log_file)
    finally:
        code = end_worker(process)
    assert code == 1
    return log_file.read_text().strip().splitlines()[-1]


def set_group_offsets(toy: ToyKafka, offsets: list[int]) -> None:
    consumer = Consumer(
        {
            "bootstrap.servers": toy.settings.bootstrap_servers,
            "group.id": f"{toy.settings.prefix}.meter",
        }
    )
    topic = f"{toy.settings.prefix}.events"
    consumer.commit(
        offsets=[TopicPartition(topic, p, offset) for p, offset in enumerate(offsets)],
        asynchronous=False,
    )
    consumer.close()


def test_a_worker_ends_cleanly_and_its_successor_goes_on(toy: ToyKafka, tmp_path: Path) -> None:
    records = toy_records(900)
    for start in range(0, 900, 300):
        toy.append(records[start : start + 300])
        run_to_the_end(toy, tmp_path / "log", checkpoint_records=50)
    assert toy.total() == toy_total(records)
    before = toy.ends("metered")
    run_to_the_end(toy, tmp_path / "log")
    assert toy.ends("metered") == before


def test_a_bug_in_the_step_ends_the_worker_and_nothing_is_passed_over(
    toy: ToyKafka, tmp_path: Path
) -> None:
    records = [r._replace(partition=1) for r in toy_records(20)]
    toy.append([*records, NewRecord("events", b"k", POISON, 1), *records])
    last = run_until_it_fails(toy, tmp_path / "log")
    assert "the step has a bug" in last
    assert toy.positions()[1] <= 20


@pytest.mark.slow
def test_records_that_the_group_leaves_out_are_read_from_the_log(
    toy: ToyKafka, tmp_path: Path
) -> None:
    records = [r._replace(partition=i % 4) for i, r in enumerate(toy_records(400))]
    toy.append(records)
    # As if a rebalance had gone wrong: the group believes more was read than was processed, in
    # partition 3 everything, so that no record comes that could show it.
    set_group_offsets(toy, [30, 60, 99, 100])
    run_to_the_end(toy, tmp_path / "log")
    assert toy.total() == toy_total(records)


def test_a_hole_stops_the_worker_until_loss_is_accepted(toy: ToyKafka, tmp_path: Path) -> None:
    records = [r._replace(partition=2) for r in toy_records(60)]
    toy.append(records[:30])
    run_to_the_end(toy, tmp_path / "log")
    toy.append(records[30:])
    topic = f"{toy.settings.prefix}.events"
    admin = AdminClient({"bootstrap.servers": toy.settings.bootstrap_servers})
    for future in admin.delete_records([TopicPartition(topic, 2, 40)]).values():
        future.result(30)
    last = run_until_it_fails(toy, tmp_path / "log")
    assert "offsets 30 to 39" in last
    assert "--accept-loss" in last
    assert toy.positions()[2] == 30
    run_to_the_end(toy, tmp_path / "log", accept_loss=1)
    deltas = [orjson.loads(r.value or b"") for r in toy.read("metered", 2)]
    assert (deltas[-1]["last"], sum(d["n"] for d in deltas)) == (59, 50)


def test_state_of_another_log_is_ignored_and_removed(toy: ToyKafka, tmp_path: Path) -> None:
    async def plant() -> None:
        writer = TransactionWriter(toy.settings, "planter", partitions=4)
        await writer.start()
        other = b'{"v":1,"log":"another","next":1000}'
        row = b'{"v":1,"records":7,"sum":7}'
        await writer.commit(
            [
                NewRecord("meter-state", b"position", other, 0),
                NewRecord("meter-state", b"source-x", row, 0),
            ]
        )
        await writer.stop()

    asyncio.run(plant())
    records = [r._replace(partition=0) for r in toy_records(10, keys=1)]
    toy.append(records)
    run_to_the_end(toy, tmp_path / "log")
    assert toy.total() == toy_total(records)
    assert sorted(toy.rows(0)) == [b"position", b"source-0"]


def test_a_topic_made_anew_under_old_state_is_refused(toy: ToyKafka, tmp_path: Path) -> None:
    async def plant() -> None:
        writer = TransactionWriter(toy.settings, "planter", partitions=4)
        await writer.start()
        position = orjson.dumps({"v": 1, "log": toy.log_id, "next": 1000})
        await writer.commit([NewRecord("meter-state", b"position", position, 0)])
        await writer.stop()

    asyncio.run(plant())
    toy.append(toy_records(10))
    assert "the topic was made anew" in run_until_it_fails(toy, tmp_path / "log")


async def _fence(toy: ToyKafka) -> None:
    old = TransactionWriter(toy.settings, "someone", partitions=4)
    await old.start()
    await old.commit([NewRecord("metered", b"k", b"first", 0)])
    new = TransactionWriter(toy.settings, "someone", partitions=4)
    await new.start()
    with pytest.raises(FencedError, match="taken over"):
        await old.commit([NewRecord("metered", b"k", b"zombie", 0)])
    await new.commit([NewRecord("metered", b"k", b"second", 0)])
    await old.stop()
    await new.stop()


def test_a_new_writer_fences_the_old_one(toy: ToyKafka, caplog: pytest.LogCaptureFixture) -> None:
    asyncio.run(_fence(toy))
    gc.collect()
    assert "never retrieved" not in caplog.text
    assert [r.value for r in toy.read("metered", 0)] == [b"first", b"second"]


async def _zombie(toy: ToyKafka) -> RuntimeStats:
    """Two owners of one partition, the first of which does not know that it is one no more."""
    stage = Stage(toy.settings, toy.log_id, 4)
    stats, clock = RuntimeStats(), SystemClock()
    records = await asyncio.to_thread(toy.read, "events", 0)
    old = await ExactPartition.open(stage, ToyStep, 0, clock, stats)
    await old.process(records[:10])
    new = await ExactPartition.open(stage, ToyStep, 0, clock, stats)
    await new.process(records[5:20])
    with pytest.raises(FencedError):
        await old.process(records[10:30])
    await old.close()
    # It starts over, and is told of records it has had and of some that are not the next ones.
    again = await ExactPartition.open(stage, ToyStep, 0, clock, stats)
    await again.process(records[:3])
    await again.process(records[35:])
    with pytest.raises(FencedError):
        await new.process(records[20:])
    await new.close()
    await again.close()
    return stats


async def test_a_zombie_and_its_successor_write_every_record_once(toy: ToyKafka) -> None:
    records = [r._replace(partition=0) for r in toy_records(40)]
    await asyncio.to_thread(toy.append, records)
    stats = await _zombie(toy)
    assert await asyncio.to_thread(toy.total) == toy_total(records)
    assert (stats.healed, stats.skipped) == (15, 5 + 3)


async def _too_large(toy: ToyKafka) -> None:
    writer = TransactionWriter(toy.settings, "someone", partitions=4)
    await writer.start()
    with pytest.raises(UnreachableError):
        await writer.commit(
            [NewRecord("metered", b"k", b"small", 0), NewRecord("metered", b"k", b"x" * 2**23, 0)]
        )
    await writer.stop()
    again = TransactionWriter(toy.settings, "someone", partitions=4)
    await again.start()
    await again.commit([NewRecord("metered", b"k", bytes(range(256)) * 6000, 0)])
    await again.stop()


def test_a_failed_transaction_leaves_nothing(toy: ToyKafka) -> None:
    asyncio.run(_too_large(toy))
    assert [len(r.value or b"") for r in toy.read("metered", 0)] == [256 * 6000]


def test_a_table_is_published_and_read_whole(toy: ToyKafka) -> None:
    asyncio.run(publish(toy.settings, "prices", {b"a": b"1", b"b": b"2"}))
    asyncio.run(publish(toy.settings, "prices", {b"a": b"3", b"b": None}))
    assert asyncio.run(read_table(toy.settings, "prices")) == {b"a": b"3"}
    with pytest.raises(ConfigError, match="more than one partition"):
        asyncio.run(read_table(toy.settings, "live"))


def test_a_worker_without_topics_or_without_kafka_says_so(kafka: Broker) -> None:
    with pytest.raises(ConfigError, match="run callmeter topics apply"):
        run_worker(f"{kafka.url}?prefix=nothing-here", lambda _: ToyStep)
    with pytest.raises(UnreachableError, match="not reachable"):
        run_worker("kafka://127.0.0.1:1", lambda _: ToyStep)
