"""Two workers as real processes, live traffic, and faults: the sum stays exact to the last unit.

Of workers SIGKILL, and SIGSTOP for longer than the session time-out followed by SIGCONT: the woken
worker still believes that it owns its partitions, and must not be able to write. Of the broker
SIGKILL.
"""

from __future__ import annotations

import asyncio
import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Self

import pytest

from callmeter.log.kafka_appender import KafkaAppender
from callmeter.log.kafka_server import KafkaServer
from callmeter.log.record import NewRecord
from support.chaos import ChaosRun
from support.kafka_server import Broker
from support.toy_kafka import ToyKafka, until
from support.toy_step import toy_records, toy_total
from support.toy_worker import end_worker, start_worker

pytestmark = [pytest.mark.kafka, pytest.mark.chaos, pytest.mark.slow]

#: Short, so that what a dead worker had is soon another's.
SESSION_S = 2.5


class Traffic:
    """Appends batches until told to finish."""

    def __init__(self, toy: ToyKafka, seed: int) -> None:
        self._toy = toy
        self._seed = seed
        self._enough = threading.Event()
        self._thread = ThreadPoolExecutor(1)
        self._sent = self._thread.submit(lambda: asyncio.run(self._send()))

    async def _send(self) -> list[NewRecord]:
        sent: list[NewRecord] = []
        appender = await KafkaAppender.start(self._toy.settings, timeout_s=60)
        while not self._enough.is_set():
            batch = toy_records(20, seed=self._seed, keys=40, first=len(sent))
            await appender.append(batch)
            sent += batch
            await asyncio.sleep(0.03)
        await appender.close()
        return sent

    def finish(self) -> list[NewRecord]:
        """What was acknowledged; raises what stopped the traffic before its time."""
        self._enough.set()
        self._thread.shutdown(wait=False)
        return self._sent.result(90)


class Fleet:
    """Two workers; one that ended is started again, as a supervisor would."""

    def __init__(self, toy: ToyKafka, log_file: Path) -> None:
        self._toy = toy
        self.log_file = log_file
        self.ended_themselves = 0
        self.workers = [self._start(), self._start()]

    def _start(self) -> subprocess.Popen[bytes]:
        return start_worker(
            self._toy.url, self.log_file, checkpoint_records=100, session_timeout_s=SESSION_S
        )

    def supervise(self) -> None:
        for index, worker in enumerate(self.workers):
            if worker.poll() is not None:
                self.ended_themselves += 1
                self.workers[index] = self._start()

    def kill(self, index: int, rng: random.Random) -> None:
        self.workers[index].kill()
        self.workers[index].wait()
        self.workers[index] = self._start()

    def pause(self, index: int, rng: random.Random) -> None:
        worker = self.workers[index]
        worker.send_signal(signal.SIGSTOP)
        time.sleep(SESSION_S + rng.uniform(1, 2.5))
        worker.send_signal(signal.SIGCONT)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self.workers:
            end_worker(worker)


@pytest.mark.timeout(3600)
def test_faults_of_workers_change_no_sum(
    quick_kafka: Broker,
    topic_prefix: str,
    tmp_path: Path,
    chaos: ChaosRun,
    capsys: pytest.CaptureFixture[str],
) -> None:
    chaos.expect("SIGKILL", "SIGSTOP")
    toy = ToyKafka.create(quick_kafka.url, topic_prefix)
    log_file = tmp_path / "workers.log"
    with Fleet(toy, log_file) as fleet:
        # Every kind comes up, whatever the seed.
        pairs = chaos.pick(short=2, long=12)
        faults = [("SIGKILL", fleet.kill), ("SIGSTOP", fleet.pause)] * pairs
        sent = run_with_faults(fleet, toy, faults, chaos)
    tell(capsys, chaos, sent, fleet, log_file)
    # Seamless deltas in every partition (checked inside), and together all that was sent, once.
    assert toy.total() == toy_total(sent)


@pytest.mark.timeout(3600)
def test_kills_of_the_broker_change_no_sum(
    own_kafka: Callable[..., KafkaServer],
    topic_prefix: str,
    tmp_path: Path,
    chaos: ChaosRun,
    capsys: pytest.CaptureFixture[str],
) -> None:
    chaos.expect("broker")
    server = own_kafka()
    toy = ToyKafka.create(server.url, topic_prefix)
    log_file = tmp_path / "workers.log"

    def kill_broker(index: int, rng: random.Random) -> None:
        server.kill()
        time.sleep(rng.uniform(1, 4))
        server.start()

    with Fleet(toy, log_file) as fleet:
        faults = [("broker", kill_broker)] * chaos.pick(short=2, long=8)
        sent = run_with_faults(fleet, toy, faults, chaos)
    tell(capsys, chaos, sent, fleet, log_file)
    assert toy.total() == toy_total(sent)


def run_with_faults(
    fleet: Fleet,
    toy: ToyKafka,
    faults: Sequence[tuple[str, Callable[[int, random.Random], None]]],
    chaos: ChaosRun,
) -> list[NewRecord]:
    """Injects the faults one after another into live traffic, then lets the fleet catch up."""
    rng = chaos.random
    traffic = Traffic(toy, chaos.seed)
    try:
        until(partial(_moved, fleet, toy, 0), fleet.log_file)
        for kind, fault in faults:
            before = sum(toy.positions())
            fault(rng.randrange(2), rng)
            chaos.count(kind)
            # The next fault comes once somebody has got on, at a moment nobody chose.
            until(partial(_moved, fleet, toy, before), fleet.log_file)
            time.sleep(rng.uniform(0, 1.5))
    finally:
        sent = traffic.finish()
    until(partial(_caught_up, fleet, toy), fleet.log_file, timeout_s=150)
    return sent


def tell(
    capsys: pytest.CaptureFixture[str],
    chaos: ChaosRun,
    sent: list[NewRecord],
    fleet: Fleet,
    log_file: Path,
) -> None:
    text = log_file.read_text(errors="replace")
    with capsys.disabled():
        print(
            f"\nfaults {chaos.injected}, records {len(sent)}, workers that ended themselves "
            f"{fleet.ended_themselves}, partitions started over {text.count('starts over')}"
        )


def _moved(fleet: Fleet, toy: ToyKafka, before: int) -> bool:
    fleet.supervise()
    return sum(toy.positions()) > before


def _caught_up(fleet: Fleet, toy: ToyKafka) -> bool:
    fleet.supervise()
    return toy.caught_up()
