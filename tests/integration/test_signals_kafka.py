"""``callmeter sink`` over a real Kafka moves every topic it reads, once, also when it is killed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from decimal import Decimal
from pathlib import Path

import pytest

from callmeter.log.kafka_admin import apply_topics
from callmeter.log.kafka_settings import KafkaSettings
from callmeter.log.kafka_transaction import TransactionWriter
from callmeter.log.record import NewRecord
from callmeter_sinks.clickhouse.opening import open_store
from callmeter_sinks.queries import Queries
from support.cli import callmeter, query, started
from support.kafka_server import Broker
from support.signals import alert, budget, live, status

pytestmark = pytest.mark.kafka

PARTITIONS = 2


def write(settings: KafkaSettings, records: Sequence[NewRecord], *, commit: bool = True) -> None:
    """In one transaction; without ``commit`` it is aborted after its records were written."""

    async def send() -> None:
        writer = TransactionWriter(settings, "signals", partitions=PARTITIONS)
        await writer.start()
        if commit:
            await writer.commit(records)
        else:
            await writer._producer.begin_transaction()
            await writer._send(records, [])
            await writer._producer.flush()
            await writer._producer.abort_transaction()
        await writer.stop()

    asyncio.run(send())


def until(holds: Callable[[], bool], patience_s: float = 90) -> None:
    deadline = time.monotonic() + patience_s
    while not holds():
        assert time.monotonic() < deadline, f"did not happen within {patience_s:.0f} s"
        time.sleep(0.2)


def test_every_topic_once_over_kafka(kafka: Broker, topic_prefix: str, tmp_path: Path) -> None:
    url = f"{kafka.url}?prefix={topic_prefix}"
    settings = KafkaSettings.from_url(url)
    log_id = asyncio.run(apply_topics(settings, partitions=PARTITIONS)).log_id
    store_url = f"chdb:{tmp_path / 'store'}"
    write(settings, [budget(), alert(log_id, 1), status(log_id, 5), live(log_id, "shop", gpt=2)])
    write(settings, [alert(log_id, 99), status(log_id, 99)], commit=False)
    with started("sink", "--kafka", url, "--store", store_url, "--serve", 0) as sink:
        assert sink.stdout is not None
        served = sink.stdout.readline()
        assert "clickhouse://" in served, served
        store = open_store(served.split()[-1])
        ask = Queries(store)
        until(lambda: [row.open for row in ask.in_flight([])] == [2])
        until(lambda: len(ask.alerts()) == 1 and len(ask.budget_status()) == 1)
        write(settings, [alert(log_id, 2), status(log_id, 7), live(log_id, "shop", gpt=1)])
        store.close()
        sink.kill()
    write(settings, [alert(log_id, 3), status(log_id, 8), live(log_id, "shop")])
    for _ in range(2):
        drained = callmeter("sink", "--kafka", url, "--store", store_url, "--drain")
        assert drained.code == 0, drained.err
    found = query(tmp_path, "SELECT id, message FROM alerts ORDER BY message")
    assert [message for _, message in found] == ["threshold 1", "threshold 2", "threshold 3"]
    (rows,) = query(tmp_path, "SELECT count(), max(spend) FROM budget_status")
    assert (rows[0], Decimal(str(rows[1]))) == (3, Decimal("8E-12"))
    assert query(tmp_path, "SELECT count() FROM budgets") == [[1]]
