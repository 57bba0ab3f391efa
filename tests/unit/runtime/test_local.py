"""The local runtime: checkpoints, restarts, failures, holes, idle ticks."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from callmeter.clock import ManualClock
from callmeter.errors import CannotWriteError, NewerSchemaError, UsageError
from callmeter.log.position import PositionConflictError
from callmeter.log.record import LogRecord, NewRecord
from callmeter.log.sqlite_log import SqliteLog
from callmeter_processors.runtime.local import LocalRuntime
from callmeter_processors.runtime.partition import HoleError
from callmeter_processors.step import Checkpoint, Output
from support.toy_step import POISON, ToyStep, delta_total, toy_records, toy_total


@pytest.fixture
def log(tmp_path: Path) -> Iterator[SqliteLog]:
    with SqliteLog(tmp_path / "log.db") as opened:
        yield opened


def total(log: SqliteLog) -> tuple[int, int]:
    sums = [
        delta_total(r.value or b"" for r in log.read("metered", p, 0, max_records=10**6))
        for p in range(log.partitions)
    ]
    return sum(n for n, _ in sums), sum(s for _, s in sums)


def poison() -> NewRecord:
    return NewRecord("events", b"k", POISON, 0)


def test_drain_processes_to_the_end_and_returns(log: SqliteLog) -> None:
    records = toy_records(1200)
    log.append(records)
    runtime = LocalRuntime(log, ToyStep, checkpoint_records=50)
    runtime.drain()
    assert total(log) == toy_total(records)
    for partition in range(4):
        assert log.position("meter-state", partition) in (None, log.end_offset("events", partition))
    assert (runtime.stats.records, runtime.stats.events) == (1200, 1200 * 8)
    assert runtime.stats.checkpoints >= 1200 // 50
    before = log.end_offset("metered", 0)
    runtime.drain()
    assert log.end_offset("metered", 0) == before


def test_restarts_between_checkpoints_change_nothing(log: SqliteLog) -> None:
    records = toy_records(400)
    for start in range(0, 400, 57):
        log.append(records[start : start + 57])
        LocalRuntime(log, ToyStep, checkpoint_records=10).drain()
    assert total(log) == toy_total(records)


def test_the_thread_follows_the_log(log: SqliteLog) -> None:
    runtime = LocalRuntime(log, ToyStep, checkpoint_s=0.01)
    runtime.start()
    records = toy_records(300)
    for start in range(0, 300, 10):
        log.append(records[start : start + 10])
    metered = dict.fromkeys(range(4), 0)
    while total(log) != toy_total(records):
        assert log.wait("metered", metered, 30), "the runtime did not get on"
        metered = log.end_offsets("metered")
        if total(log) == toy_total(records):
            break
    runtime.stop()
    assert runtime.failed is None
    assert runtime.stats.lag == 0


def test_drain_beside_a_running_thread_waits_for_all_of_it(log: SqliteLog) -> None:
    runtime = LocalRuntime(log, ToyStep, checkpoint_s=3600.0)
    runtime.start()
    with pytest.raises(UsageError):
        runtime.start()
    records = toy_records(700)
    log.append(records)
    runtime.drain()
    assert total(log) == toy_total(records)
    runtime.stop()


def test_stop_writes_what_was_waiting(log: SqliteLog) -> None:
    seen = threading.Event()

    class Signals(ToyStep):
        def process(self, record: LogRecord) -> None:
            super().process(record)
            seen.set()

    runtime = LocalRuntime(log, Signals, checkpoint_s=3600.0)
    runtime.start()
    records = toy_records(1)
    log.append(records)
    assert seen.wait(30)
    runtime.stop()
    assert total(log) == toy_total(records)


def test_a_bug_in_the_step_stops_before_anything_of_its_checkpoint(log: SqliteLog) -> None:
    log.append([*(r._replace(partition=0) for r in toy_records(3)), poison()])
    runtime = LocalRuntime(log, ToyStep)
    with pytest.raises(RuntimeError, match="has a bug"):
        runtime.drain()
    assert isinstance(runtime.failed, RuntimeError)
    assert log.end_offset("metered", 0) == 0
    assert log.position("meter-state", 0) is None
    with pytest.raises(RuntimeError, match="has a bug"):
        runtime.stop()


def test_a_failed_thread_is_surfaced_by_stop(log: SqliteLog) -> None:
    runtime = LocalRuntime(log, ToyStep)
    runtime.start()
    log.append([poison()])
    with pytest.raises(RuntimeError, match="has a bug"):
        runtime.drain()
    with pytest.raises(RuntimeError, match="has a bug"):
        runtime.stop()


def test_state_of_a_newer_format_stops_before_anything_is_written(log: SqliteLog) -> None:
    row = NewRecord("meter-state", b"k", b'{"v":2,"records":1,"sum":1}', 0)
    log.append([row, *toy_records(3)])
    with pytest.raises(NewerSchemaError):
        LocalRuntime(log, ToyStep).drain()
    assert log.end_offset("metered", 0) == 0


def test_a_second_runtime_on_the_same_log_is_refused(log: SqliteLog) -> None:
    first, second = LocalRuntime(log, ToyStep), LocalRuntime(log, ToyStep)
    records = [r._replace(partition=0) for r in toy_records(6)]
    log.append(records[:2])
    first.drain()
    log.append(records[2:4])
    second.drain()
    log.append(records[4:])
    with pytest.raises(PositionConflictError):
        first.drain()
    second.drain()
    assert total(log) == toy_total(records)


def test_a_full_log_stops_the_runtime_and_a_new_one_goes_on(tmp_path: Path) -> None:
    class Wide(ToyStep):
        def checkpoint(self) -> Checkpoint:
            rows, outputs = (c := super().checkpoint()).rows, list(c.outputs)
            if outputs and self.partition == 0:
                outputs.append(Output("alerts", b"a", b"x" * 2**21, 0))
            return Checkpoint(rows, outputs)

    records = [r._replace(partition=0) for r in toy_records(20)]
    with SqliteLog(tmp_path / "log.db", max_bytes=2**20) as log:
        log.append(records)
        runtime = LocalRuntime(log, Wide)
        with pytest.raises(CannotWriteError, match="is full"):
            runtime.drain()
        assert total(log) == (0, 0)
        LocalRuntime(log, ToyStep).drain()
        assert total(log) == toy_total(records)


def test_a_hole_stops_unless_loss_is_accepted(log: SqliteLog) -> None:
    records = [r._replace(partition=0) for r in toy_records(9)]
    log.append(records[:3])
    LocalRuntime(log, ToyStep).drain()
    log.append(records[3:])
    log.prune("events", below={0: 5})
    with pytest.raises(HoleError, match=r"offsets 3 to 4 .*--accept-loss"):
        LocalRuntime(log, ToyStep).drain()
    runtime = LocalRuntime(log, ToyStep, accept_loss=True)
    runtime.drain()
    assert runtime.stats.lost == 2
    deltas = [orjson.loads(r.value or b"") for r in log.read("metered", 0, 0)]
    assert [(d["first"], d["last"]) for d in deltas] == [(0, 2), (5, 8)]


def test_retention_that_removed_everything_unread_is_a_hole_too(log: SqliteLog) -> None:
    log.append([r._replace(partition=0) for r in toy_records(2)])
    LocalRuntime(log, ToyStep).drain()
    log.append([r._replace(partition=0) for r in toy_records(2)])
    log.prune("events", below={0: 4})
    with pytest.raises(HoleError, match="offsets 2 to 3"):
        LocalRuntime(log, ToyStep).drain()


def test_without_a_position_reading_begins_where_the_log_does(log: SqliteLog) -> None:
    log.append([r._replace(partition=0) for r in toy_records(5)])
    log.prune("events", below={0: 2})
    LocalRuntime(log, ToyStep).drain()
    assert orjson.loads(log.read("metered", 0, 0)[0].value or b"")["first"] == 2


def test_an_idle_partition_is_ticked_once_a_second_and_may_write(tmp_path: Path) -> None:
    steps: list[ToyStep] = []

    class Ticking(ToyStep):
        def __init__(self, log_id: str, partition: int) -> None:
            super().__init__(log_id, partition)
            steps.append(self)

        def checkpoint(self) -> Checkpoint:
            made = super().checkpoint()
            late = len(self.ticks) == 2 and not made.outputs and self.partition == 3
            return Checkpoint({b"silent": b'{"v":1,"records":0,"sum":0}'}) if late else made

    clock = ManualClock()
    with SqliteLog(tmp_path / "log.db", clock=clock) as log:
        runtime = LocalRuntime(log, Ticking, clock=clock)
        runtime.drain()
        runtime.drain()
        assert [len(s.ticks) for s in steps] == [1, 1, 1, 1]
        assert log.position("meter-state", 3) is None
        clock.advance(1)
        runtime.drain()
        assert [len(s.ticks) for s in steps] == [2, 2, 2, 2]
        assert b"silent" in log.rows("meter-state", 3)
        assert log.position("meter-state", 3) == 0
        assert log.position("meter-state", 2) is None


def test_a_checkpoint_is_bounded_in_bytes(tmp_path: Path):
    """Large records are written in several transactions, however many one may hold by count."""
    numbers = b"{" + b" " * 4_000_000 + b"}\n7\n"
    with SqliteLog(tmp_path / "log.db", partitions=1) as log:
        log.append([NewRecord("events", b"k", numbers, 0)] * 12)
        runtime = LocalRuntime(log, ToyStep, checkpoint_records=1000)
        runtime.drain()
        assert runtime.stats.records == 12
        # 4 MB each: at 16 MiB and more, that is after every fifth.
        assert runtime.stats.checkpoints == 3
        assert sum(runtime.stats.size.counts) == 3
