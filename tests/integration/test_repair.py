"""repair: whatever is wrong with a range of the store, afterwards it is what the log says."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from callmeter.errors import UsageError
from callmeter.log.kafka_consumer import KafkaGroupReader
from callmeter.log.kafka_settings import KafkaSettings
from callmeter.log.sqlite_log import SqliteLog
from callmeter_sinks.clickhouse.chdb_store import ChdbStore
from callmeter_sinks.intents import Books, Claim
from callmeter_sinks.repair import Repair, RepairDisturbedError, Repaired
from callmeter_sinks.repair_plan import RangeMissingError, Wanted, plan_repair
from callmeter_sinks.sink import Sink
from callmeter_sinks.source import SqliteSource
from callmeter_sinks.verify import verify
from support.kafka_server import Broker
from support.ledger import LOG, Book, us
from support.metered import NOW_US, MeteredStream, Truth
from support.metered_topic import MeteredTopic
from support.stored import append, expected, sqlite_log, stored
from support.stores import empty, migrated_chdb

PARTITIONS = 2


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChdbStore]:
    with migrated_chdb(tmp_path_factory.mktemp("repair") / "db") as opened:
        yield opened


@pytest.fixture
def store(engine: ChdbStore) -> Iterator[ChdbStore]:
    """The engine, emptied afterwards."""
    yield engine
    empty(engine)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[SqliteLog]:
    with sqlite_log(tmp_path / "log.db", PARTITIONS) as opened:
        yield opened


@pytest.fixture
def streams(log: SqliteLog, store: ChdbStore) -> list[MeteredStream]:
    """Five checkpoints of four envelopes in each partition: origins 0 to 19; all stored."""
    made = [MeteredStream(log.log_id, partition, months=1) for partition in range(PARTITIONS)]
    for _ in range(5):
        for stream in made:
            append(log, stream.partition, stream.checkpoint(envelopes=4, events=10, parts=2))
    Sink(store, SqliteSource(log)).drain()
    return made


def truth(streams: list[MeteredStream]) -> dict[str, object]:
    total = Truth()
    for stream in streams:
        total.add(stream.truth)
    return expected(total)


def over_kafka(topic: MeteredTopic, group: str) -> KafkaGroupReader:
    settings = KafkaSettings.from_url(topic.url, {})
    return KafkaGroupReader(settings, "metered", group=group, log_id=topic.log_id, whole=True)


def repaired(store: ChdbStore, log: SqliteLog, wanted: Wanted) -> Repaired:
    source = SqliteSource(log)
    repair = Repair(store, source)
    repair.settle()
    return repair.run(plan_repair(store, source, wanted))


def delete(store: ChdbStore, table: str, where: str) -> None:
    store.command(f"DELETE FROM {table} WHERE {where}", None, {"lightweight_deletes_sync": "2"})


def damage(store: ChdbStore) -> None:
    """Rows gone, rows twice, rows that nobody sent, sums off, an empty table."""
    delete(store, "calls", "partition = 0 AND origin BETWEEN 5 AND 9")
    delete(store, "rollup_controls", "partition = 1 AND first = 8")
    store.command("INSERT INTO costs SELECT * FROM costs", None, {"insert_deduplicate": "0"})
    store.command(
        "INSERT INTO calls SELECT * REPLACE (toUInt16(900) AS idx) FROM calls WHERE origin = 3",
        None, {"insert_deduplicate": "0"},
    )  # fmt: skip
    delete(store, "rollup_1h", "1")
    delete(store, "hist_1m", "status = 'error'")
    delete(store, "envelopes", "partition = 1")


def test_everything_is_made_anew(
    store: ChdbStore, log: SqliteLog, streams: list[MeteredStream]
) -> None:
    good = truth(streams)
    assert stored(store) == good
    damage(store)
    assert stored(store) != good
    done = repaired(store, log, Wanted())
    assert stored(store) == good
    assert done.events == sum(s.truth.counts["events"] + s.truth.counts["refused"] for s in streams)
    # And the sinks go on behind it.
    for stream in streams:
        append(log, stream.partition, stream.checkpoint())
    assert Sink(store, SqliteSource(log)).drain().rebuilds == 0
    assert stored(store) == truth(streams)


def test_an_intact_store_stays_as_it_is(
    store: ChdbStore, log: SqliteLog, streams: list[MeteredStream]
) -> None:
    repaired(store, log, Wanted())
    assert stored(store) == truth(streams)


def test_a_range_of_one_partition_alone(
    store: ChdbStore, log: SqliteLog, streams: list[MeteredStream]
) -> None:
    delete(store, "calls", "partition = 1 AND origin BETWEEN 5 AND 6")
    delete(store, "metrics", "partition = 1 AND origin = 6")
    wanted = Wanted.of(1, 5, 6)
    (planned,) = plan_repair(store, SqliteSource(log), wanted).ranges
    assert (planned.partition, planned.first, planned.last) == (1, 4, 7)  # its whole checkpoint
    repaired(store, log, wanted)
    assert stored(store) == truth(streams)


def test_what_the_log_got_in_a_period(
    store: ChdbStore, log: SqliteLog, streams: list[MeteredStream]
) -> None:
    at = datetime.fromtimestamp(NOW_US / 1e6, UTC)
    since, until = (at.replace(microsecond=at.microsecond + us) for us in (5, 6))
    plan = plan_repair(store, SqliteSource(log), Wanted.of(since=since, until=until))
    assert [(each.first, each.last) for each in plan.ranges] == [(4, 7)] * PARTITIONS


def test_a_repair_that_is_cut_short_anywhere_is_started_again(
    store: ChdbStore, log: SqliteLog, streams: list[MeteredStream], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After so many statements a crash, inside the deletes, the inserts and the rollups."""
    damage(store)

    class CrashError(Exception):
        pass

    command, insert = store.command, store.insert_block

    def counted(call):
        def step(*args, **more):
            nonlocal left
            left -= 1
            if left < 0:
                raise CrashError
            return call(*args, **more)

        return step

    for allowed in (2, 4, 6, 9):
        source = SqliteSource(log)
        repair = Repair(store, source)
        repair.settle()
        plan = plan_repair(store, source, Wanted())
        left = allowed
        with monkeypatch.context() as patch:
            patch.setattr(store, "command", counted(command))
            patch.setattr(store, "insert_block", counted(insert))
            with pytest.raises(CrashError):
                repair.run(plan)
    repaired(store, log, Wanted())
    assert stored(store) == truth(streams)


def test_a_sink_that_comes_up_meanwhile_stops_the_repair(
    store: ChdbStore, log: SqliteLog, streams: list[MeteredStream]
) -> None:
    source = SqliteSource(log)
    repair = Repair(store, source)
    repair.settle()
    plan = plan_repair(store, source, Wanted())
    Books(store, "callmeter", "metered").write_claim(1, Claim(99, LOG))
    with pytest.raises(RepairDisturbedError, match="a sink has taken partition 1"):
        repair.run(plan)
    assert stored(store) == truth(streams)  # nothing was touched yet


def test_refuses_what_the_log_no_longer_has_and_names_it(
    store: ChdbStore, log: SqliteLog, streams: list[MeteredStream]
) -> None:
    log.prune("metered", before_us=2**62, below={0: 8})  # a checkpoint of six records and a bit
    source = SqliteSource(log)
    with pytest.raises(RangeMissingError, match=r"partition 0: offsets 0 to 7 are gone .* 8 "):
        plan_repair(store, source, Wanted())
    with pytest.raises(RangeMissingError, match="offsets 3 to 7 are gone"):
        plan_repair(store, source, Wanted.of(0, 3, 9))
    with pytest.raises(RangeMissingError, match=r"offsets 20 to 30 are not in the log"):
        plan_repair(store, source, Wanted.of(1, 18, 30))
    with pytest.raises(UsageError, match="there is no partition 7"):
        plan_repair(store, source, Wanted.of(7))
    with pytest.raises(UsageError, match="name it too"):
        Wanted.of(None, 3)
    delete(store, "calls", "partition = 0 AND origin > 8")
    repaired(store, log, Wanted.of(0, 8))
    assert stored(store) == truth(streams)


def test_a_partition_that_retention_has_emptied_is_named(
    store: ChdbStore, log: SqliteLog, streams: list[MeteredStream]
) -> None:
    log.prune("metered", before_us=2**62, below={1: 2**62})
    source = SqliteSource(log)
    with pytest.raises(RangeMissingError, match=r"partition 1: .* the store has offsets 0 to 19"):
        plan_repair(store, source, Wanted())
    assert plan_repair(store, source, Wanted.of(0)).events > 0


def test_quarantine_is_lifted_once_the_store_takes_the_record(
    store: ChdbStore, log: SqliteLog
) -> None:
    stream = MeteredStream(log.log_id, 0, seed=3, months=1)
    append(log, 0, stream.checkpoint(envelopes=4))
    store.command("ALTER TABLE metrics ADD CONSTRAINT picky CHECK name != 'loss'")
    append(log, 0, stream.checkpoint(envelopes=1, events=30))
    try:
        assert Sink(store, SqliteSource(log)).drain().quarantined > 0
        assert repaired(store, log, Wanted()).still_refused
    finally:
        store.command("ALTER TABLE metrics DROP CONSTRAINT picky")
    assert stored(store) != expected(stream.truth)
    done = repaired(store, log, Wanted())
    assert done.lifted > 0
    assert store.query("SELECT count() FROM sink_quarantine").rows == [(0,)]
    assert stored(store) == expected(stream.truth)


def test_the_meters_own_records_are_equal_by_verify_too(store: ChdbStore, log: SqliteLog) -> None:
    book = Book()
    at_us = us("2026-03-01T12:00")
    for number in range(3):
        book.envelope(
            book.call(number=10 * number, latency_us=2**number, ttft_us=1),
            book.call(number=10 * number + 1, usage=None, cost=None, model="b", status="error"),
            {"kind": "cost", "ts_us": at_us, "started_us": at_us, "cost_pico": "-7",
             "source": "bill", "provider": "openai", "model": "gpt-4o"},
        )  # fmt: skip
        book.checkpoint()
    append(log, 0, [r.replace(LOG.encode(), log.log_id.encode()) for r in book.take()])
    Sink(store, SqliteSource(log)).drain()
    delete(store, "rollup_1m", "1")
    delete(store, "calls", "origin = 1")
    assert not verify(store).equal
    repaired(store, log, Wanted())
    result = verify(store)
    assert [check for check in result.checks if not check.equal] == []
    assert list(result.unverifiable) == []


@pytest.mark.kafka
def test_over_kafka_markers_and_aborted_records_are_no_holes(
    store: ChdbStore, kafka: Broker, topic_prefix: str
) -> None:
    topic = MeteredTopic(kafka.bootstrap, topic_prefix, partitions=2, seed=5)
    for partition in (0, 1, 0, 1):
        topic.abort(partition)
        topic.checkpoint(partition)
    topic.abort(0)
    source = over_kafka(topic, "sink")
    try:
        Sink(store, source).drain()
    finally:
        source.close()
    assert stored(store) == expected(topic.truth)
    delete(store, "calls", "partition = 0")
    delete(store, "rollup_1d", "1")
    source = over_kafka(topic, "repair")
    try:
        repair = Repair(store, source)
        repair.settle()
        plan = plan_repair(store, source, Wanted())
        assert [(each.first, each.last) for each in plan.ranges] == [(0, 7), (0, 7)]
        repair.run(plan)
    finally:
        source.close()
    assert stored(store) == expected(topic.truth)
