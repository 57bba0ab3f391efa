"""Budgets over a real Kafka: meters and watches killed under traffic, racing edits, the route."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest

from callmeter.collector.budget_sources import KafkaBudgets
from callmeter.errors import CannotWriteError
from callmeter.ids import uuid7
from callmeter.log.definitions import edit_kafka
from callmeter.log.kafka_admin import apply_topics
from callmeter.log.kafka_appender import KafkaAppender
from callmeter.log.kafka_settings import KafkaSettings
from callmeter.log.kafka_state import open_partition
from callmeter.log.record import LogRecord, NewRecord
from callmeter.schema.alerts import Alert, decode_alert
from callmeter.schema.budgets import Budget, next_version
from callmeter.schema.status import BudgetStatus, decode_status
from callmeter_processors.runtime.definitions import Definitions
from callmeter_processors.runtime.kafka_definitions import following
from support.cli import callmeter, environment
from support.kafka_server import Broker
from support.metering import call_end, envelope

pytestmark = [pytest.mark.kafka, pytest.mark.slow]
PARTITIONS = 3


@pytest.fixture
def url(kafka: Broker, topic_prefix: str) -> str:
    made = f"{kafka.url}?prefix={topic_prefix}"
    asyncio.run(apply_topics(KafkaSettings.from_url(made), partitions=PARTITIONS))
    return made


class Worker:
    """A meter or a watch as a process, that can be killed and started again."""

    def __init__(self, url: str, log: Path, *options: str) -> None:
        self._command = [sys.executable, "-m", "callmeter", "worker", "--kafka", url, *options]
        self._log = log
        self.start()

    def start(self) -> None:
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                self._command, stdout=log, stderr=log, env=environment()
            )

    def kill(self) -> None:
        assert self.process.poll() is None, self._log.read_text()[-3000:]
        self.process.kill()
        self.process.wait()


async def records(url: str, topic: str) -> list[LogRecord]:
    settings = KafkaSettings.from_url(url)
    found: list[LogRecord] = []
    for partition in range(PARTITIONS):
        async with open_partition(settings, topic, partition) as reader:
            first, end = await reader.offsets()
            found += [record async for record in reader.read(first, end)]
    return found


def statuses(url: str) -> dict[str, BudgetStatus]:
    newest = {record.key: record.value for record in asyncio.run(records(url, "budget-status"))}
    return {(key or b"").decode(): decode_status(v) for key, v in newest.items() if v is not None}


def until(condition: Callable[[], bool], what: Callable[[], str], patience_s: float = 90) -> None:
    deadline = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < deadline, what()
        time.sleep(0.3)


async def send(url: str, batches: list[list[tuple[bytes, bytes]]]) -> None:
    appender = await KafkaAppender.start(KafkaSettings.from_url(url))
    for batch in batches:
        await appender.append([NewRecord("events", key, value) for key, value in batch])
        await asyncio.sleep(0.15)
    await appender.close()


def make_batches(rng: random.Random, count: int) -> tuple[list[list[tuple[bytes, bytes]]], Counter]:
    """Envelopes with duplicates among them, and what each entity truly spends in pico-USD."""
    truth: Counter[str] = Counter()
    sources = [uuid7() for _ in range(6)]
    batches = []
    for seq in range(count):
        batch = []
        for source in sources:
            now_us = time.time_ns() // 1000
            calls = []
            for _ in range(5):
                user, pico = rng.choice(["alice", "bob", "carol"]), rng.randrange(1, 10**12)
                calls.append(
                    call_end(ts_us=now_us, started_us=now_us, user=user, cost_pico=str(pico))
                )
                truth["team|"] += pico
                truth[f"users|{user}"] += pico
            value = envelope(calls, source=source, seq=seq, sent_us=now_us)
            batch += [(source.encode(), value)] * rng.choice([1, 1, 2])
        batches.append(batch)
    return batches, truth


def spent(status: BudgetStatus) -> int:
    """The month's spend; calls at the turn of a month may lie in the one before."""
    before = 0 if not hasattr(status.previous, "spend_pico") else int(status.previous.spend_pico)
    return int(status.spend_pico) + before


def test_killed_meters_and_watches_end_at_the_true_spend(url: str, tmp_path: Path) -> None:
    budgets = {"team": 150, "users": 40}
    for name, limit in budgets.items():
        per = ["--per", "user"] if name == "users" else []
        made = callmeter(
            "budget", "set", name, "--limit", limit, "--window", "month", *per, "--kafka", url
        )
        assert made.code == 0, made.err
    rng = random.Random(11)
    batches, truth = make_batches(rng, 60)
    meters = [Worker(url, tmp_path / f"meter-{i}.log") for i in range(2)]
    watches = [Worker(url, tmp_path / f"watch-{i}.log", "--watch") for i in range(2)]
    everyone = [*meters, *watches]
    try:
        until(lambda: bool(asyncio.run(records(url, "meter-state"))), lambda: "no meter began")
        half = len(batches) // 2
        for part in (batches[:half], batches[half:]):
            asyncio.run(send(url, part))
            for worker in rng.sample(everyone, 3):
                worker.kill()
                worker.start()
        until(
            lambda: {key: spent(s) for key, s in statuses(url).items()} == truth,
            lambda: f"{ {key: spent(s) for key, s in statuses(url).items()} } is not {truth}",
        )
        found = statuses(url)
        assert found["team|"].state == "exceeded"
        said: list[Alert] = [
            decode_alert(record.value or b"") for record in asyncio.run(records(url, "alerts"))
        ]
        assert len({alert.id for alert in said}) == len(said)
        crossed = Counter((alert.rule, alert.entity) for alert in said if alert.kind == "threshold")
        expected: Counter[tuple[str, str]] = Counter()
        for key, pico in truth.items():
            name, _, entity = key.partition("|")
            limit = budgets[name] * 10**12
            expected[name, entity] = sum(pico * 100 >= limit * p for p in (50, 80, 100))
        assert crossed == +expected
        assert callmeter("budget", "check", "team", "--kafka", url).code == 1
        rows = callmeter("budget", "status", "--kafka", url, "--json").json()["rows"]
        assert {row["entity"] for row in rows if row["budget"] == "users"} == {
            "alice", "bob", "carol",
        }  # fmt: skip
    finally:
        for worker in everyone:
            worker.process.kill()
            worker.process.wait()


def test_of_edits_that_race_one_changes_nothing(url: str) -> None:
    settings = KafkaSettings.from_url(url)
    winner = next_version(None, Budget(id="team", limit_pico="1"), 1)
    loser = next_version(None, Budget(id="team", limit_pico="2"), 1)

    def slow(_known: object) -> Budget:
        # Another process, as it were: this one is within an event loop.
        from threading import Thread

        other = Thread(target=edit_kafka, args=(settings, lambda _: winner))
        other.start()
        other.join()
        return loser

    with pytest.raises(CannotWriteError, match="nothing was changed"):
        edit_kafka(settings, slow)
    seen: list[Budget] = []
    edit_kafka(settings, lambda known: seen.extend(known.values()) or known["team"])
    assert seen == [winner]


async def test_definitions_and_the_route_follow_the_topic(url: str) -> None:
    settings = KafkaSettings.from_url(url)
    source = KafkaBudgets(settings)
    definitions = Definitions()
    try:
        assert list(await source.poll()) == []
        async with following(settings, definitions):
            assert definitions.current() == ()
            made = next_version(None, Budget(id="team", limit_pico="1"), 1)
            await asyncio.to_thread(edit_kafka, settings, lambda _: made)
            async with asyncio.timeout(20):
                while definitions.current() != (made,):
                    await asyncio.sleep(0.05)
                found: list[LogRecord] = []
                while not found:
                    found += await source.poll()
        assert {record.key for record in found} <= {b"team", b"position"}
        assert [orjson.loads(r.value or b"")["id"] for r in found if r.key == b"team"] == ["team"]
    finally:
        await source.close()
