"""Workers come and go under load: sums stay exact, stalls are printed. Newer state is refused."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Self

import orjson
import pytest

from callmeter.clock import SystemClock
from callmeter.log.kafka_transaction import TransactionWriter
from callmeter.log.record import NewRecord
from support.cli import callmeter
from support.kafka_server import Broker
from support.metering import source
from support.toy_kafka import ToyKafka, until
from support.toy_step import toy_total
from support.toy_traffic import SteadyTraffic, longest_stall_s
from support.toy_worker import end_worker, start_worker

pytestmark = [pytest.mark.kafka, pytest.mark.slow]


@pytest.fixture
def toy(kafka: Broker, topic_prefix: str) -> ToyKafka:
    return ToyKafka.create(kafka.url, topic_prefix)


class Fleet:
    """Workers with a log each; whatever is left of them ends with the test."""

    def __init__(self, toy: ToyKafka, directory: Path) -> None:
        self._toy = toy
        self._directory = directory
        self.workers: list[Worker] = []

    def start(self, **options: object) -> Worker:
        log_file = self._directory / f"worker-{len(self.workers)}.log"
        worker = Worker(self._toy, log_file, options)
        self.workers.append(worker)
        return worker

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self.workers:
            if worker.process.poll() is None:
                worker.process.kill()
                worker.process.wait()


class Worker:
    def __init__(self, toy: ToyKafka, log_file: Path, options: dict[str, object]) -> None:
        self.log_file = log_file
        self._toy = toy
        self.process = start_worker(
            toy.url, log_file, checkpoint_records=200, session_timeout_s=6, **options
        )

    @property
    def log(self) -> str:
        return self.log_file.read_text(errors="replace")

    def works(self) -> bool:
        """It has restored a partition that was given to it."""
        assert self.process.poll() is None, self.log[-3000:]
        return "rows restored" in self.log

    def end(self) -> None:
        assert end_worker(self.process) == 0, self.log[-3000:]


def moves_on(toy: ToyKafka, log_file: Path) -> None:
    """Every partition has got on since now."""
    before = toy.positions()
    until(lambda: all(b > a for a, b in zip(before, toy.positions(), strict=True)), log_file)


def test_a_worker_joins_and_leaves_under_load(
    toy: ToyKafka, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = SystemClock()
    with Fleet(toy, tmp_path) as fleet:
        first = fleet.start()
        with SteadyTraffic(toy) as traffic:
            until(first.works, first.log_file)
            moves_on(toy, first.log_file)
            joins_us = clock.now_us()
            second = fleet.start()
            until(second.works, second.log_file)
            moves_on(toy, second.log_file)
            leaves_us = clock.now_us()
            second.end()
            moves_on(toy, first.log_file)
            gone_us = clock.now_us()
        until(toy.caught_up, first.log_file)
        first.end()
    joined_s = longest_stall_s(toy, joins_us, leaves_us)
    left_s = longest_stall_s(toy, leaves_us, gone_us)
    with capsys.disabled():
        print(
            f"\n{len(traffic.sent)} records; longest stall of a partition while a worker joined "
            f"{joined_s:.1f} s, while it left {left_s:.1f} s"
        )
    assert toy.total() == toy_total(traffic.sent)


def test_newer_state_ends_a_worker_with_one_line_and_code_78(toy: ToyKafka) -> None:
    key = b"s:" + source(1).encode()

    async def plant() -> None:
        writer = TransactionWriter(toy.settings, "planter", partitions=4)
        await writer.start()
        position = orjson.dumps({"v": 1, "log": toy.log_id, "next": 0})
        row = orjson.dumps({"v": 99, "log": toy.log_id, "new": [1, 2]})
        rows = [(b"position", position), (key, row)]
        await writer.commit([NewRecord("meter-state", name, value, 2) for name, value in rows])
        await writer.stop()

    asyncio.run(plant())
    ran = callmeter("worker", "--kafka", toy.url)
    assert ran.code == 78
    assert ran.err.strip().splitlines() == [ran.err.strip()]
    assert f"state row {key.decode()} has format 99" in ran.err
    assert toy.ends("metered") == [0, 0, 0, 0]
