"""``callmeter notify --url`` over real collectors: of `callmeter up`, and in front of a Kafka."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from ssl import SSLContext, create_default_context
from typing import Any

import pytest
import trustme
from aiokafka import TopicPartition
from aiokafka.admin import RecordsToDelete

from callmeter.ids import uuid7
from callmeter.log.kafka_admin import apply_topics
from callmeter.log.kafka_appender import KafkaAppender
from callmeter.log.kafka_clients import make_admin
from callmeter.log.kafka_settings import KafkaSettings
from callmeter.log.kafka_transaction import TransactionWriter
from callmeter.log.record import NewRecord
from callmeter.log.sqlite_log import SqliteLog
from callmeter.schema.alerts import Alert, encode_alert
from support.alert_receiver import AlertReceiver
from support.alerting import alert
from support.cli import callmeter, environment, started
from support.embedded import Pipeline
from support.kafka_server import Broker

PARTITIONS = 3


def until(holds: Callable[[], bool], patience_s: float = 90) -> None:
    deadline = time.monotonic() + patience_s
    while not holds():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.02)


def some(count: int, project: str) -> list[Alert]:
    return [alert(0, id=uuid7(), rule=f"r{n % 7}", project=project) for n in range(count)]


def records(alerts: Sequence[Alert]) -> list[NewRecord]:
    return [NewRecord("alerts", each.rule.encode(), encode_alert(each)) for each in alerts]


def ids(alerts: Sequence[Alert]) -> set[str]:
    return {each.id for each in alerts}


def test_alerts_of_up_are_delivered_over_kills(
    embedded: Pipeline, project: str, tmp_path: Path
) -> None:
    """Killed while it delivers and while it waits; a project's alerts alone, each of them."""
    said = some(30, project)
    with AlertReceiver() as receiver, SqliteLog(embedded.directory / "log.db") as log:
        arguments = (
            "notify", "--url", embedded.url, "--webhook", receiver.url,
            "--project", project, "--state", tmp_path / "state",
        )  # fmt: skip
        log.append(records([*said[:10], *some(10, f"{project}-other")]))
        with started(*arguments) as process:
            until(lambda: len(receiver.taken) >= 4)
            process.kill()
            process.wait()
        log.append(records(said[10:20]))
        with started(*arguments) as process:
            until(lambda: len(receiver.taken) >= 20)
            log.append(records(said[20:]))  # while it waits at the collector
            until(lambda: len(receiver.taken) >= 30)
            process.send_signal(signal.SIGTERM)
            out, err = process.communicate(timeout=60)
        assert (process.returncode, err) == (0, "")
        assert "0 waiting" in out
        assert receiver.taken.keys() == ids(said)
        # The kill may have come between an answer and its note, once.
        assert sum(receiver.taken.values()) <= len(said) + 1


class Tls:
    """A certificate for loopback and what trusts it."""

    def __init__(self, folder: Path) -> None:
        authority = trustme.CA()
        made = authority.issue_cert("127.0.0.1", "localhost")
        self.cert, self.key, self.ca = (folder / n for n in ("cert.pem", "key.pem", "ca.pem"))
        authority.cert_pem.write_to_path(str(self.ca))
        made.private_key_pem.write_to_path(str(self.key))
        self.cert.write_bytes(b"".join(blob.bytes() for blob in made.cert_chain_pems))

    @property
    def context(self) -> SSLContext:
        return create_default_context(cafile=str(self.ca))


class Place:
    """A prefix on Kafka and a collector in front of it, with keys and TLS."""

    def __init__(self, broker: Broker, prefix: str, folder: Path) -> None:
        self.kafka_url = f"{broker.url}?prefix={prefix}"
        self.settings = KafkaSettings.from_url(self.kafka_url, {})
        self.tls = Tls(folder)
        self.port = 0
        asyncio.run(apply_topics(self.settings, partitions=PARTITIONS))

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    @contextmanager
    def collector(self) -> Iterator[subprocess.Popen[str]]:
        arguments = (
            "collector", "--kafka", self.kafka_url, "--port", self.port,
            "--tls-cert", self.tls.cert, "--tls-key", self.tls.key, "--key", "writes-shop:shop",
            "--read-key", "reads-shop:shop", "--read-key", "reads-other:other",
        )  # fmt: skip
        with started(*arguments) as process:
            assert process.stdout is not None
            found = re.search(r"https://127.0.0.1:(\d+)", process.stdout.readline())
            assert found is not None
            self.port = int(found[1])
            yield process
            process.kill()

    def ask(self, query: str, key: str) -> tuple[int, dict[str, Any]]:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        request = urllib.request.Request(f"{self.url}/v1/alerts{query}", headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=60, context=self.tls.context) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as refused:
            with refused:
                return refused.code, json.load(refused)

    async def say(self, alerts: Sequence[Alert]) -> None:
        appender = await KafkaAppender.start(self.settings)
        try:
            await appender.append(records(alerts))
        finally:
            await appender.close()

    async def leave_open(self, alerts: Sequence[Alert]) -> None:
        """Alerts of a worker that is fenced before it commits."""
        name = f"{self.settings.prefix}.meter.0"
        writers = [TransactionWriter(self.settings, name, partitions=PARTITIONS) for _ in range(2)]
        try:
            await writers[0].start()
            producer = writers[0]._producer
            await producer.begin_transaction()
            for each in records(alerts):
                topic = f"{self.settings.prefix}.alerts"
                await producer.send_and_wait(topic, each.value, key=each.key)
            await writers[1].start()
        finally:
            for writer in writers:
                await writer.stop()

    async def remove_all(self) -> None:
        """As retention does."""
        admin = make_admin(self.settings)
        await admin.start()
        try:
            topic = f"{self.settings.prefix}.alerts"
            ends = {TopicPartition(topic, n): RecordsToDelete(-1) for n in range(PARTITIONS)}
            await admin.delete_records(ends)
        finally:
            await admin.close()


@pytest.mark.kafka
@pytest.mark.slow
def test_a_collector_in_front_of_kafka(kafka: Broker, topic_prefix: str, tmp_path: Path) -> None:
    """Positions outlive notify's and the collector's kills; keys decide; retention is told."""
    place = Place(kafka, topic_prefix, tmp_path)
    said, hidden, never = some(30, "shop"), some(5, "other"), some(3, "shop")
    key = tmp_path / "key"
    key.write_text("reads-shop\n")
    env = environment(CALLMETER_API_KEY_FILE=str(key), CALLMETER_CA_FILE=str(place.tls.ca))
    with AlertReceiver() as receiver:
        options = ("--webhook", receiver.url, "--state", tmp_path / "state")
        with place.collector():
            asyncio.run(place.say([*said[:10], *hidden, alert(0, id=uuid7(), project="")]))
            # Who may not read, reads nothing; who may, reads his own.
            assert [place.ask("", k)[0] for k in ("", "nobody-knows", "writes-shop")] == [
                401, 401, 403,
            ]  # fmt: skip
            assert place.ask("?project=shop", "reads-other")[0] == 403
            _, body = place.ask("?since=1h", "reads-other")
            assert {each["alert"]["id"] for each in body["alerts"]} == ids(hidden)
            key.write_text("reads-other\n")
            ran = callmeter(
                "notify", "--url", place.url, "--project", "shop", *options, "--drain", env=env
            )
            assert ran.code == 78
            assert "does not cover the project 'shop'" in ran.err
            assert ran.err.count("\n") == 1
            key.write_text("reads-shop\n")
            with started("notify", "--url", place.url, *options, env=env) as process:
                until(lambda: len(receiver.taken) >= 3)
                process.kill()
                process.wait()
        asyncio.run(place.leave_open(never))
        asyncio.run(place.say([*said[10:15], *said[:2]]))
        with (
            place.collector() as collector,
            started("notify", "--url", place.url, *options, env=env) as process,
        ):
            until(lambda: len(receiver.taken) >= 15)
            collector.kill()
            collector.wait()
            asyncio.run(place.say(said[15:20]))
            with place.collector():  # at the same port
                until(lambda: len(receiver.taken) >= 20)
                process.send_signal(signal.SIGTERM)
                _, err = process.communicate(timeout=60)
                assert process.returncode == 0, err
                assert err.count("trying again") == 1
                asyncio.run(place.say(said[20:25]))
                asyncio.run(place.remove_all())
                asyncio.run(place.say(said[25:]))
                ran = callmeter("notify", "--url", place.url, *options, "--drain", env=env)
        assert ran.code == 0, ran.err
        assert "5 alerts taken, 5 delivered" in ran.out
        assert "past the log's retention" in ran.err
        assert receiver.taken.keys() == ids([*said[:20], *said[25:]])
        assert sum(receiver.taken.values()) <= 25 + 1
