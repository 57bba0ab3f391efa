"""One suite over both runtimes: the same records give the same rows and the same outputs.

Checkpoints fall where they like, so outputs are compared as what they add up to; within a partition
the deltas must be seamless. Restarts, clean and by SIGKILL, come in between.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
from pathlib import Path
from typing import Protocol

import orjson
import pytest

from callmeter.log.position import POSITION_KEY
from callmeter.log.record import NewRecord
from callmeter.log.sqlite_log import SqliteLog
from callmeter_processors.runtime.local import LocalRuntime
from support.kafka_server import Broker
from support.toy_kafka import ToyKafka, until
from support.toy_step import ToyStep, delta_total, toy_records, toy_total
from support.toy_worker import end_worker, start_worker

PARTITIONS = 4


class Shape(Protocol):
    """A log and the runtime over it."""

    def append(self, records: list[NewRecord]) -> None: ...

    def run(self, *, kill: bool) -> None:
        """Runs to the end of the log; then a clean end, or SIGKILL."""
        ...

    def rows(self, partition: int) -> dict[bytes, bytes]: ...

    def outputs(self, topic: str, partition: int) -> list[tuple[bytes | None, bytes]]: ...


def _run_until_killed(path: str) -> None:
    with SqliteLog(path) as log:
        runtime = LocalRuntime(log, ToyStep, checkpoint_s=0.01, checkpoint_records=7)
        runtime.start()
        signal.pause()


class Embedded:
    def __init__(self, directory: Path) -> None:
        self.path = directory / "log.db"
        self.log = SqliteLog(self.path, partitions=PARTITIONS)

    def append(self, records: list[NewRecord]) -> None:
        self.log.append(records)

    def run(self, *, kill: bool) -> None:
        if not kill:
            LocalRuntime(self.log, ToyStep, checkpoint_records=11).drain()
            return
        context = multiprocessing.get_context("spawn")
        process = context.Process(target=_run_until_killed, args=(str(self.path),), daemon=True)
        process.start()
        until(self._moved, self.path.with_suffix(".none"))
        os.kill(process.pid or 0, signal.SIGKILL)
        process.join()
        LocalRuntime(self.log, ToyStep).drain()

    def _moved(self) -> bool:
        return any(self.log.position("meter-state", p) for p in range(PARTITIONS))

    def rows(self, partition: int) -> dict[bytes, bytes]:
        return self.log.rows("meter-state", partition)

    def outputs(self, topic: str, partition: int) -> list[tuple[bytes | None, bytes]]:
        records = self.log.read(topic, partition, 0, max_records=10**6)
        return [(r.key, r.value or b"") for r in records]


class Distributed:
    def __init__(self, kafka: ToyKafka, directory: Path) -> None:
        self.kafka = kafka
        self.log_file = directory / "worker.log"

    def append(self, records: list[NewRecord]) -> None:
        self.kafka.append(records)

    def run(self, *, kill: bool) -> None:
        process = start_worker(
            self.kafka.url, self.log_file, checkpoint_records=40, session_timeout_s=6
        )
        try:
            until(lambda: self._done(process.poll()), self.log_file)
        finally:
            if kill:
                process.kill()
                process.wait()
            else:
                assert end_worker(process) == 0

    def _done(self, code: int | None) -> bool:
        assert code is None, f"the worker ended with {code}: {self.log_file.read_text()[-3000:]}"
        return self.kafka.caught_up()

    def rows(self, partition: int) -> dict[bytes, bytes]:
        return self.kafka.rows(partition)

    def outputs(self, topic: str, partition: int) -> list[tuple[bytes | None, bytes]]:
        return [(r.key, r.value or b"") for r in self.kafka.read(topic, partition)]


def story(shape: Shape, seed: int) -> list[NewRecord]:
    """Appends and runs in turns; everything that was appended."""
    rng = random.Random(seed)
    records: list[NewRecord] = []
    for kill in (False, True, False):
        chunk = toy_records(rng.randrange(150, 300), seed=seed, keys=9, first=len(records))
        if kill:  # a key is forgotten, and comes back with a later record
            chunk.append(NewRecord("events", b"source-0", b'{"v":1}\n0\n'))
        shape.append(chunk)
        records += chunk
        shape.run(kill=kill)
    return records


def figures(shape: Shape) -> list[dict[str, object]]:
    """Per partition: rows, position, what the deltas add up to, the last output of each key."""
    found: list[dict[str, object]] = []
    for partition in range(PARTITIONS):
        rows = shape.rows(partition)
        position = rows.pop(POSITION_KEY, b"{}")
        outputs = shape.outputs("metered", partition)
        found.append(
            {
                "rows": rows,
                "next": orjson.loads(position).get("next"),
                "deltas": delta_total(value for _, value in outputs),
                "live": dict(shape.outputs("live", partition)),
            }
        )
    return found


def check_against_the_truth(shape: Shape, records: list[NewRecord]) -> None:
    found = figures(shape)
    sums = [f["deltas"] for f in found]
    assert isinstance(sums[0], tuple)
    total = tuple(sum(column) for column in zip(*sums, strict=True))
    assert total == toy_total(records)


@pytest.mark.parametrize("seed", [1, 2])
def test_the_local_runtime_adds_up(tmp_path: Path, seed: int) -> None:
    shape = Embedded(tmp_path)
    check_against_the_truth(shape, story(shape, seed))
    shape.log.close()


@pytest.mark.kafka
@pytest.mark.parametrize("seed", [1])
def test_both_runtimes_give_the_same(
    kafka: Broker, topic_prefix: str, tmp_path: Path, seed: int
) -> None:
    local = Embedded(tmp_path)
    faust = Distributed(ToyKafka.create(kafka.url, topic_prefix, PARTITIONS), tmp_path)
    records = story(local, seed)
    assert story(faust, seed) == records
    check_against_the_truth(faust, records)
    assert figures(faust) == figures(local)
    local.log.close()
