"""The log wiped under a store that stays, and the store wiped under a log that stays."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient

from callmeter.embedded import LOG_FILE, STORE_DIRECTORY, Embedded
from callmeter.log.kafka_consumer import KafkaGroupReader
from callmeter.log.kafka_settings import KafkaSettings
from callmeter.log.record import NewRecord
from callmeter.log.sqlite_log import SqliteLog
from callmeter_sinks.clickhouse.store import Store
from callmeter_sinks.progress import arrived
from callmeter_sinks.sink import Sink
from callmeter_sinks.verify import verify
from support.kafka_server import Broker
from support.metered import Truth
from support.metered_topic import MeteredTopic
from support.stored import expected, stored
from support.stores import migrated_chdb
from support.wire_producer import CALLS, WireProducer, send


def lived(directory: Path, producer: WireProducer, envelopes: int) -> None:
    """One life of the pipeline: envelopes come, and all of them are stored when it ends."""
    with Embedded(directory) as pipeline:
        send(pipeline.url, [producer.envelope() for _ in range(envelopes)])


def wipe_log(directory: Path) -> None:
    for path in directory.glob(f"{LOG_FILE}*"):
        path.unlink()


def calls(store: Store) -> tuple[int, ...]:
    """Rows, different identities, input tokens raw, and input tokens by minute, hour and day."""
    sql = (
        "SELECT count(), uniqExact(log_id, partition, origin, idx), sum(input_tokens), "
        "(SELECT sum(input_tokens) FROM rollup_1m), (SELECT sum(input_tokens) FROM rollup_1h), "
        "(SELECT sum(input_tokens) FROM rollup_1d) FROM calls"
    )
    return tuple(map(int, store.query(sql).rows[0]))


def exactly(envelopes: int) -> tuple[int, ...]:
    rows = envelopes * CALLS
    return (rows, rows, *[rows * 100] * 4)


def test_a_wiped_log_loses_what_was_in_flight_and_verify_names_it(tmp_path: Path) -> None:
    producer = WireProducer()
    lived(tmp_path, producer, 4)
    with SqliteLog(tmp_path / LOG_FILE) as log:  # acknowledged, and nothing has read it yet
        for _ in range(2):
            sealed = producer.envelope()
            log.append([NewRecord("events", sealed.source.encode(), sealed.data)])
    wipe_log(tmp_path)
    lived(tmp_path, producer, 3)
    with Embedded(tmp_path) as pipeline:
        result = verify(pipeline.store)
        assert calls(pipeline.store) == exactly(4 + 3)
        histories = pipeline.store.query("SELECT uniqExact(log_id) FROM envelopes").rows
    assert result.equal
    assert [(gap.source, gap.first, gap.last, gap.events) for gap in result.gaps] == [
        (producer.source, 4, 5, 2 * CALLS)
    ]
    assert histories == [(2,)]


def test_a_wiped_log_without_anything_in_flight_costs_nothing(tmp_path: Path) -> None:
    producer = WireProducer()
    lived(tmp_path, producer, 4)
    wipe_log(tmp_path)
    lived(tmp_path, producer, 3)
    with Embedded(tmp_path) as pipeline:
        result = verify(pipeline.store)
        assert calls(pipeline.store) == exactly(7)
    assert (result.equal, list(result.gaps), list(result.unverifiable)) == (True, [], [])


def test_a_wiped_store_is_filled_from_the_log_again(tmp_path: Path) -> None:
    producer = WireProducer()
    lived(tmp_path, producer, 5)
    shutil.rmtree(tmp_path / STORE_DIRECTORY)
    lived(tmp_path, producer, 2)
    with Embedded(tmp_path) as pipeline:
        result = verify(pipeline.store)
        assert calls(pipeline.store) == exactly(7)
        assert arrived(pipeline.store, [producer.source])[producer.source].next_missing == 7
    assert (result.equal, list(result.gaps), list(result.unverifiable)) == (True, [], [])


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with migrated_chdb(tmp_path / "store") as opened:
        yield opened


def drain(topic: MeteredTopic, store: Store) -> None:
    settings = KafkaSettings.from_url(topic.url, {})
    source = KafkaGroupReader(settings, "metered", group="sink", log_id=topic.log_id, whole=True)
    try:
        Sink(store, source).drain()
    finally:
        source.close()


def fill(topic: MeteredTopic) -> None:
    for partition in range(len(topic.streams)):
        topic.abort(partition)
        topic.checkpoint(partition)


@pytest.mark.kafka
def test_topics_made_anew_begin_a_history_beside_the_old_one(
    kafka: Broker, topic_prefix: str, store: Store
) -> None:
    old = MeteredTopic(kafka.bootstrap, topic_prefix, partitions=2, seed=1)
    fill(old)
    drain(old, store)
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    names = [name for name in admin.list_topics(timeout=30).topics if name.startswith(topic_prefix)]
    for deleted in admin.delete_topics(names, operation_timeout=30).values():
        deleted.result(60)
    new = MeteredTopic(kafka.bootstrap, topic_prefix, partitions=2, seed=2)
    assert new.log_id != old.log_id
    for _ in range(2):
        fill(new)
        drain(new, store)
    truth = Truth()
    truth.add(old.truth)
    truth.add(new.truth)
    assert stored(store) == expected(truth)


@pytest.mark.kafka
def test_a_wiped_store_is_filled_from_kafka_again(
    kafka: Broker, topic_prefix: str, tmp_path: Path
) -> None:
    topic = MeteredTopic(kafka.bootstrap, topic_prefix, partitions=2, seed=3)
    fill(topic)
    with migrated_chdb(tmp_path / "first") as first:
        drain(topic, first)
    fill(topic)
    with migrated_chdb(tmp_path / "second") as second:
        drain(topic, second)
        assert stored(second) == expected(topic.truth)
