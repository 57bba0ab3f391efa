"""Two workers as real processes, live traffic, and faults: the sum stays exact to the last unit.

Of workers SIGKILL, and SIGSTOP for longer than the session time-out followed by SIGCONT: the woken
worker still believes that it owns its partitions, and must not be able to write. Of the broker
SIGKILL. ``CALLMETER_CHAOS_FAULTS`` (default 4) and ``CALLMETER_CHAOS_SEED`` make it longer and
other.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Self

import pytest

from callmeter.log.kafka_appender import KafkaAppender
from callmeter.log.kafka_server import KafkaServer
from callmeter.log.record import NewRecord
from support.kafka_server import Broker
from support.toy_kafka import ToyKafka, until
from support.toy_step import toy_records, toy_total
from support.toy_worker import end_worker, start_worker

pytestmark = [pytest.mark.kafka, pytest.mark.chaos, pytest.mark.slow]

FAULTS = int(os.environ.get("CALLMETER_CHAOS_FAULTS", "4"))
SEED = int(os.environ.get("CALLMETER_CHAOS_SEED", "1"))
SESSION_S = 6.0


class Traffic:
    """Appends batches until told to finish."""

    def __init__(self, toy: ToyKafka) -> None:
        self._toy = toy
        self._enough = threading.Event()
        self._thread = ThreadPoolExecutor(1)
        self._sent = self._thread.submit(lambda: asyncio.run(self._send()))

    async def _send(self) -> list[NewRecord]:
        sent: list[NewRecord] = []
        appender = await KafkaAppender.start(self._toy.settings, timeout_s=60)
        while not self._enough.is_set():
            batch = toy_records(20, seed=SEED, keys=40, first=len(sent))
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
        time.sleep(SESSION_S + rng.uniform(2, 5))
        worker.send_signal(signal.SIGCONT)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self.workers:
            end_worker(worker)


@pytest.mark.timeout(300 + 60 * FAULTS)
def test_faults_of_workers_change_no_sum(
    kafka: Broker, topic_prefix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = random.Random(SEED)
    toy = ToyKafka.create(kafka.url, topic_prefix)
    log_file = tmp_path / "workers.log"
    with Fleet(toy, log_file) as fleet:
        # Every kind comes up, whatever the seed.
        faults = [("SIGKILL", fleet.kill), ("SIGSTOP", fleet.pause)] * (FAULTS // 2)
        injected, sent = run_with_faults(fleet, toy, faults, rng)
    tell(capsys, injected, sent, fleet, log_file)
    assert min(injected["SIGKILL"], injected["SIGSTOP"]) > 0
    # Seamless deltas in every partition (checked inside), and together all that was sent, once.
    assert toy.total() == toy_total(sent)


@pytest.mark.timeout(300 + 60 * FAULTS)
def test_kills_of_the_broker_change_no_sum(
    own_kafka: Callable[..., KafkaServer],
    topic_prefix: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    rng = random.Random(SEED)
    server = own_kafka()
    toy = ToyKafka.create(server.url, topic_prefix)
    log_file = tmp_path / "workers.log"

    def kill_broker(index: int, rng: random.Random) -> None:
        server.kill()
        time.sleep(rng.uniform(1, 4))
        server.start()

    with Fleet(toy, log_file) as fleet:
        faults = [("broker", kill_broker)] * (FAULTS // 2)
        injected, sent = run_with_faults(fleet, toy, faults, rng)
    tell(capsys, injected, sent, fleet, log_file)
    assert injected["broker"] > 0
    assert toy.total() == toy_total(sent)


def run_with_faults(
    fleet: Fleet,
    toy: ToyKafka,
    faults: Sequence[tuple[str, Callable[[int, random.Random], None]]],
    rng: random.Random,
) -> tuple[Counter[str], list[NewRecord]]:
    """Injects the faults one after another into live traffic, then lets the fleet catch up."""
    injected: Counter[str] = Counter()
    traffic = Traffic(toy)
    try:
        until(partial(_moved, fleet, toy, 0), fleet.log_file)
        for kind, fault in faults:
            before = sum(toy.positions())
            fault(rng.randrange(2), rng)
            injected[kind] += 1
            # The next fault comes once somebody has got on, at a moment nobody chose.
            until(partial(_moved, fleet, toy, before), fleet.log_file)
            time.sleep(rng.uniform(0, 3))
    finally:
        sent = traffic.finish()
    until(partial(_caught_up, fleet, toy), fleet.log_file, timeout_s=150)
    return injected, sent


def tell(
    capsys: pytest.CaptureFixture[str],
    injected: Counter[str],
    sent: list[NewRecord],
    fleet: Fleet,
    log_file: Path,
) -> None:
    text = log_file.read_text(errors="replace")
    with capsys.disabled():
        print(
            f"\nfaults {dict(injected)}, records {len(sent)}, workers that ended themselves "
            f"{fleet.ended_themselves}, partitions started over {text.count('starts over')}"
        )


def _moved(fleet: Fleet, toy: ToyKafka, before: int) -> bool:
    fleet.supervise()
    return sum(toy.positions()) > before


def _caught_up(fleet: Fleet, toy: ToyKafka) -> bool:
    fleet.supervise()
    return toy.caught_up()
