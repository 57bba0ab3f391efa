"""``callmeter notify`` over a real Kafka: committed alerts only, each once, over kills."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from callmeter.log.kafka_admin import apply_topics
from callmeter.log.kafka_appender import KafkaAppender
from callmeter.log.kafka_settings import KafkaSettings
from callmeter.log.kafka_transaction import TransactionWriter
from callmeter.log.record import NewRecord
from callmeter.schema.alerts import Alert, encode_alert
from support.alert_receiver import AlertReceiver
from support.alerting import alert
from support.cli import callmeter, started
from support.kafka_server import Broker

pytestmark = [pytest.mark.kafka, pytest.mark.slow]
PARTITIONS = 3


def until(holds: Callable[[], bool], patience_s: float = 90) -> None:
    deadline = time.monotonic() + patience_s
    while not holds():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.05)


def records(alerts: Sequence[Alert]) -> list[NewRecord]:
    return [NewRecord("alerts", each.rule.encode(), encode_alert(each)) for each in alerts]


async def append(settings: KafkaSettings, alerts: Sequence[Alert]) -> None:
    appender = await KafkaAppender.start(settings)
    try:
        await appender.append(records(alerts))
    finally:
        await appender.close()


async def leave_open(settings: KafkaSettings, alerts: Sequence[Alert]) -> None:
    """Alerts of a worker that is fenced before it commits."""
    writers = [
        TransactionWriter(settings, f"{settings.prefix}.meter.0", partitions=PARTITIONS)
        for _ in range(2)
    ]
    try:
        await writers[0].start()
        producer = writers[0]._producer
        await producer.begin_transaction()
        for each in records(alerts):
            await producer.send_and_wait(f"{settings.prefix}.alerts", each.value, key=each.key)
        await writers[1].start()
    finally:
        for writer in writers:
            await writer.stop()


def test_committed_alerts_are_delivered_once_each(
    kafka: Broker, topic_prefix: str, tmp_path: Path
) -> None:
    url = f"{kafka.url}?prefix={topic_prefix}"
    settings = KafkaSettings.from_url(url, {})
    asyncio.run(apply_topics(settings, partitions=PARTITIONS))
    alerts = [alert(n, rule=f"r{n}") for n in range(30)]
    never = [alert(1000 + n, rule=f"r{n}") for n in range(3)]
    with AlertReceiver() as receiver:
        arguments = ("notify", "--kafka", url, "--webhook", receiver.url, "--state", tmp_path / "s")
        with started(*arguments) as process:
            asyncio.run(append(settings, alerts[:10]))
            until(lambda: len(receiver.taken) >= 5)
            process.kill()
            process.wait()
        asyncio.run(leave_open(settings, never))
        asyncio.run(append(settings, alerts[10:20]))
        with started(*arguments) as process:
            until(lambda: len(receiver.taken) >= 20)
            process.send_signal(signal.SIGTERM)
            out, err = process.communicate(timeout=60)
            assert process.returncode == 0, err
            assert "0 waiting" in out
        asyncio.run(append(settings, [*alerts[20:], *alerts[:5]]))
        ran = callmeter(*arguments, "--drain")
        assert ran.code == 0, ran.err
        assert "10 alerts taken, 10 delivered" in ran.out
        assert receiver.taken.keys() == {each.id for each in alerts}
        # The kill may have come between an answer and its note, once.
        assert sum(receiver.taken.values()) <= len(alerts) + 1


def test_no_kafka_is_said_in_a_line(tmp_path: Path) -> None:
    ran = callmeter(
        "notify", "--kafka", "kafka://127.0.0.1:9", "--webhook", "http://127.0.0.1:9/",
        "--state", tmp_path,
    )  # fmt: skip
    assert ran.code == 69
    assert ran.err.count("\n") == 1
