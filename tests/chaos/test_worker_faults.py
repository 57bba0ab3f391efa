"""Two workers as real processes, live traffic, and faults: the sum stays exact to the last unit.

SIGKILL, and SIGSTOP for longer than the session time-out followed by SIGCONT: the woken worker
still believes that it owns its partitions, and must not be able to write.
``CALLMETER_CHAOS_FAULTS`` (default 4) and ``CALLMETER_CHAOS_SEED`` make it longer and other.
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
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from callmeter.log.kafka_appender import KafkaAppender
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
        self._log_file = log_file
        self.ended_themselves = 0
        self.workers = [self._start(), self._start()]

    def _start(self) -> subprocess.Popen[bytes]:
        return start_worker(
            self._toy.url, self._log_file, checkpoint_records=100, session_timeout_s=SESSION_S
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

    def end(self) -> None:
        for worker in self.workers:
            end_worker(worker)


@pytest.mark.timeout(300 + 60 * FAULTS)
def test_faults_of_workers_change_no_sum(
    kafka: Broker, topic_prefix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = random.Random(SEED)
    toy = ToyKafka.create(kafka.url, topic_prefix)
    log_file = tmp_path / "workers.log"
    traffic = Traffic(toy)
    fleet = Fleet(toy, log_file)
    injected: Counter[str] = Counter()
    try:
        until(lambda: sum(toy.positions()) > 0, log_file)
        for number in range(FAULTS):
            # Every kind comes up, whatever the seed: in turns, beginning anywhere.
            kind = ("SIGKILL", "SIGSTOP")[number % 2]
            fault = fleet.kill if kind == "SIGKILL" else fleet.pause
            before = sum(toy.positions())
            fault(rng.randrange(2), rng)
            injected[kind] += 1
            fleet.supervise()
            # The next fault comes once somebody has got on, at a moment nobody chose.
            until(partial(_moved, fleet, toy, before), log_file)
            time.sleep(rng.uniform(0, 3))
        sent = traffic.finish()
        until(lambda: _caught_up(fleet, toy), log_file, timeout_s=150)
    finally:
        traffic.finish()
        fleet.end()
    text = log_file.read_text(errors="replace")
    with capsys.disabled():
        print(
            f"\nfaults {dict(injected)}, records {len(sent)}, workers that ended themselves "
            f"{fleet.ended_themselves}, partitions started over {text.count('starts over')}"
        )
    assert min(injected["SIGKILL"], injected["SIGSTOP"]) > 0
    # Seamless deltas in every partition (checked inside), and together all that was sent, once.
    assert toy.total() == toy_total(sent)


def _moved(fleet: Fleet, toy: ToyKafka, before: int) -> bool:
    fleet.supervise()
    return sum(toy.positions()) > before


def _caught_up(fleet: Fleet, toy: ToyKafka) -> bool:
    fleet.supervise()
    return toy.caught_up()
