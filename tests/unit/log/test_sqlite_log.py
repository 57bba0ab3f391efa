"""The SQLite log: offsets, compaction, commits, group commit, pruning and its one-line errors."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import random
import signal
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from callmeter.clock import ManualClock
from callmeter.errors import (
    CannotWriteError,
    ConfigError,
    DataError,
    NewerSchemaError,
    UnreachableError,
    UsageError,
)
from callmeter.log.partitioner import partition_for
from callmeter.log.position import PositionConflictError
from callmeter.log.record import Appended, NewRecord
from callmeter.log.sqlite_appender import SqliteAppender
from callmeter.log.sqlite_log import SqliteLog


@pytest.fixture
def log(tmp_path: Path) -> Iterator[SqliteLog]:
    with SqliteLog(tmp_path / "log.db") as opened:
        yield opened


def event(value: bytes = b"x", *, partition: int | None = 0, key: bytes = b"k") -> NewRecord:
    return NewRecord("events", key, value, partition)


def test_offsets_run_per_partition_and_survive_a_reopen(tmp_path: Path) -> None:
    with SqliteLog(tmp_path / "log.db") as log:
        log_id = log.log_id
        assert log.append([event(), event(partition=1), event()]) == [(0, 0), (1, 0), (0, 1)]
    with SqliteLog(tmp_path / "log.db") as log:
        assert log.log_id == log_id
        assert log.append([event(b"later")]) == [Appended(0, 2)]
        assert [r.value for r in log.read("events", 0, 1)] == [b"x", b"later"]
        assert (log.first_offset("events", 0), log.end_offset("events", 0)) == (0, 3)


def test_a_record_without_partition_goes_where_kafka_would_put_it(log: SqliteLog) -> None:
    for n in range(50):
        key = b"source-%d" % n
        placed = log.append([event(key=key, partition=None)])[0]
        assert placed.partition == partition_for(key, 4)
    assert log.append([NewRecord("budgets", b"some-budget", b"{}")]) == [Appended(0, 0)]


def test_records_come_back_as_they_went(tmp_path: Path) -> None:
    clock = ManualClock(1_700_000_000_000_000)
    with SqliteLog(tmp_path / "log.db", clock=clock) as log:
        value = random.Random(1).randbytes(300_000)
        log.append([event(value, key=b"\x00key\xff")])
        (record,) = log.read("events", 0, 0)
        assert record == ("events", 0, 0, 1_700_000_000_000_000, b"\x00key\xff", value)


def test_read_keeps_its_limits_but_never_returns_nothing_for_a_large_record(log: SqliteLog) -> None:
    log.append([event(b"a" * 1000) for _ in range(10)])
    assert len(log.read("events", 0, 0, max_records=3)) == 3
    assert len(log.read("events", 0, 2, max_bytes=2500)) == 2
    assert len(log.read("events", 0, 9, max_bytes=1)) == 1
    assert log.read("events", 0, 10) == []


def test_a_compacted_topic_keeps_the_newest_record_of_a_key(log: SqliteLog) -> None:
    for value in (b"1", b"2"):
        log.append([NewRecord("live", b"a", value, 0), NewRecord("live", b"b", value, 0)])
    log.append([NewRecord("live", b"b", None, 0)])
    assert log.rows("live", 0) == {b"a": b"2"}
    # A reader that follows the topic sees the tombstone, and holes where older records were.
    assert [(r.offset, r.value) for r in log.read("live", 0, 0)] == [(2, b"2"), (4, None)]


def test_two_records_of_one_key_in_one_append(log: SqliteLog) -> None:
    log.append([NewRecord("live", b"a", b"old", 0), NewRecord("live", b"a", b"new", 0)])
    assert log.rows("live", 0) == {b"a": b"new"}
    assert [r.offset for r in log.read("live", 0, 0)] == [1]


def test_a_compacted_topic_needs_keys(log: SqliteLog) -> None:
    with pytest.raises(UsageError, match="need a key"):
        log.append([NewRecord("live", None, b"1", 0)])


def test_an_unknown_topic_or_partition_is_refused_and_nothing_is_written(log: SqliteLog) -> None:
    for bad in (NewRecord("nothing", b"k", b"v", 0), event(partition=4)):
        with pytest.raises(UsageError):
            log.append([event(), bad])
    assert log.end_offset("events", 0) == 0


def test_commit_moves_rows_outputs_and_position_together(log: SqliteLog) -> None:
    outputs = [NewRecord("metered", b"s", b"o%d" % i, 2) for i in range(3)]
    placed = log.commit(
        "meter-state", 2, rows={b"r": b"1", b"gone": b"2"}, outputs=outputs,
        next_offset=7, expected_next=None,
    )  # fmt: skip
    assert placed == [(2, 0), (2, 1), (2, 2)]
    log.commit("meter-state", 2, rows={b"gone": None}, outputs=[], next_offset=9, expected_next=7)
    rows = log.rows("meter-state", 2)
    assert orjson.loads(rows.pop(b"position")) == {"v": 1, "log": log.log_id, "next": 9}
    assert rows == {b"r": b"1"}
    assert log.position("meter-state", 2) == 9
    assert log.position("meter-state", 1) is None


@pytest.mark.parametrize("expected", [None, 6, 8])
def test_commit_refuses_another_position_and_writes_nothing(
    log: SqliteLog, expected: int | None
) -> None:
    log.commit("meter-state", 0, rows={}, outputs=[], next_offset=7, expected_next=None)
    with pytest.raises(PositionConflictError, match="another one runs"):
        log.commit(
            "meter-state", 0, rows={b"r": b"1"}, outputs=[NewRecord("metered", b"s", b"o", 0)],
            next_offset=10, expected_next=expected,
        )  # fmt: skip
    assert log.position("meter-state", 0) == 7
    assert b"r" not in log.rows("meter-state", 0)
    assert log.end_offset("metered", 0) == 0


def test_a_position_of_a_newer_format_or_not_a_position_stops(log: SqliteLog) -> None:
    log.append([NewRecord("meter-state", b"position", b'{"v":2,"log":"x","next":1}', 0)])
    with pytest.raises(NewerSchemaError):
        log.position("meter-state", 0)
    log.append([NewRecord("meter-state", b"position", b"nonsense", 0)])
    with pytest.raises(DataError):
        log.commit("meter-state", 0, rows={}, outputs=[], next_offset=1, expected_next=None)


def test_pruned_offsets_are_never_used_again(tmp_path: Path) -> None:
    clock = ManualClock()
    with SqliteLog(tmp_path / "log.db", clock=clock) as log:
        log.append([event() for _ in range(2500)])
        clock.advance(10)
        border_us = clock.now_us()
        log.append([event(b"young")])
        assert log.prune("events", before_us=border_us) == 2500
        assert (log.first_offset("events", 0), log.end_offset("events", 0)) == (2500, 2501)
        assert log.prune("events", below={0: 10**6}) == 1
        assert log.first_offset("events", 0) == log.end_offset("events", 0) == 2501
    with SqliteLog(tmp_path / "log.db", clock=clock) as log:
        assert log.append([event()]) == [Appended(0, 2501)]


def test_prune_below_offsets_touches_only_the_partitions_named(log: SqliteLog) -> None:
    log.append([event(partition=p) for p in (0, 1) for _ in range(5)])
    assert log.prune("events", below={0: 3}) == 3
    assert [r.offset for r in log.read("events", 0, 0)] == [3, 4]
    assert log.first_offset("events", 1) == 0
    with pytest.raises(UsageError):
        log.prune("events")


def test_prune_takes_only_tombstones_of_a_compacted_topic(log: SqliteLog) -> None:
    log.append([NewRecord("live", b"a", b"1", 0), NewRecord("live", b"b", None, 0)])
    assert log.prune("live", below={0: 100}) == 1
    assert log.rows("live", 0) == {b"a": b"1"}
    log.append([NewRecord("live", b"b", b"2", 0)])
    assert log.rows("live", 0) == {b"a": b"1", b"b": b"2"}


def test_wait_wakes_on_an_append_and_gives_up_at_its_time(log: SqliteLog) -> None:
    assert not log.wait("events", {0: 0, 1: 0}, 0.0)
    answers: list[bool] = []
    waiting = threading.Thread(target=lambda: answers.append(log.wait("events", {0: 0, 1: 0}, 60)))
    waiting.start()
    log.append([event(partition=1)])
    waiting.join(30)
    assert answers == [True]
    assert log.wait("events", {1: 0}, 60)


def test_wait_ends_when_told_to_stop_or_closed(tmp_path: Path) -> None:
    log = SqliteLog(tmp_path / "log.db")
    stopping = threading.Event()
    answers: list[bool] = []
    threads = [
        threading.Thread(
            target=lambda: answers.append(log.wait("events", {0: 0}, 60, stopping=stopping))
        ),
        threading.Thread(target=lambda: answers.append(log.wait("events", {0: 0}, 60))),
    ]
    for thread in threads:
        thread.start()
    stopping.set()
    log.wake()
    threads[0].join(30)
    assert answers == [False]
    log.close()
    threads[1].join(30)
    assert answers == [False, False]


def test_many_threads_append_every_record_once_and_share_transactions(log: SqliteLog) -> None:
    def produce(number: int) -> None:
        for i in range(50):
            log.append([event(b"%d:%d" % (number, i)), event(b"%d:%d+" % (number, i))])

    threads = [threading.Thread(target=produce, args=(n,)) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    records = log.read("events", 0, 0, max_records=10_000)
    assert [r.offset for r in records] == list(range(1600))
    values = [r.value for r in records]
    for number in range(16):
        own = [v for v in values if v is not None and v.startswith(b"%d:" % number)]
        expected = [b"%d:%d%b" % (number, i, plus) for i in range(50) for plus in (b"", b"+")]
        assert own == expected
    assert log.transactions <= 800


def test_a_refusal_fails_alone_in_its_group(log: SqliteLog) -> None:
    log.commit("meter-state", 0, rows={}, outputs=[], next_offset=1, expected_next=None)
    outcome: list[str] = []
    barrier = threading.Barrier(8)

    def appender() -> None:
        barrier.wait()
        for _ in range(20):
            log.append([event()])
        outcome.append("appended")

    def refused() -> None:
        barrier.wait()
        for _ in range(20):
            with pytest.raises(PositionConflictError):
                log.commit("meter-state", 0, rows={}, outputs=[], next_offset=2, expected_next=5)
        outcome.append("refused")

    threads = [threading.Thread(target=t) for t in (appender, refused) * 4]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcome) == ["appended"] * 4 + ["refused"] * 4
    assert log.end_offset("events", 0) == 80


def test_a_full_disk_is_one_line_writes_nothing_and_is_got_over(tmp_path: Path) -> None:
    with SqliteLog(tmp_path / "log.db", max_bytes=2**20) as log:
        while log.end_offset("events", 0) < 16:
            log.append([event(b"x" * 50_000), event(b"y" * 50_000)])
        with pytest.raises(CannotWriteError, match="is full") as refused:
            log.append([event(b"x" * 50_000)] * 10)
        written = 16
        assert "\n" not in str(refused.value)
        assert log.end_offset("events", 0) == written == len(log.read("events", 0, 0))
        assert log.prune("events", below={0: written}) == written
        assert log.append([event(b"z" * 50_000)]) == [Appended(0, written)]


def test_a_file_that_is_no_log_is_left_alone(tmp_path: Path) -> None:
    text = tmp_path / "text.db"
    text.write_bytes(b"no database at all " * 100)
    with pytest.raises(ConfigError, match="not a callmeter log"):
        SqliteLog(text)
    assert text.read_bytes() == b"no database at all " * 100
    other = tmp_path / "other.db"
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE mine (x)")
    connection.close()
    with pytest.raises(ConfigError, match="not a callmeter log"):
        SqliteLog(other)


def test_a_newer_format_another_count_and_a_missing_directory(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    SqliteLog(path).close()
    with pytest.raises(ConfigError, match="4 partitions, not 8"):
        SqliteLog(path, partitions=8)
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version=2")
    connection.close()
    with pytest.raises(NewerSchemaError, match="newer callmeter"):
        SqliteLog(path)
    with pytest.raises(CannotWriteError, match="not a directory"):
        SqliteLog(tmp_path / "nowhere" / "log.db")


def test_a_lock_of_another_process_is_named(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    with SqliteLog(path, busy_s=0.0) as log:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(CannotWriteError, match="locked by another process"):
            log.append([event()])
        other.execute("ROLLBACK")
        other.close()
        assert log.append([event()]) == [Appended(0, 0)]


def test_a_second_opener_sees_and_wakes(tmp_path: Path) -> None:
    with SqliteLog(tmp_path / "log.db") as first, SqliteLog(tmp_path / "log.db") as second:
        assert first.log_id == second.log_id
        assert second.append([event(b"from the other")]) == [Appended(0, 0)]
        assert first.wait("events", {0: 0}, 60)
        assert first.append([event()]) == [Appended(0, 1)]
        assert [r.offset for r in second.read("events", 0, 0)] == [0, 1]


def test_after_close_nothing_can_be_written(tmp_path: Path) -> None:
    log = SqliteLog(tmp_path / "log.db")
    log.close()
    log.close()
    with pytest.raises(CannotWriteError, match="closed"):
        log.append([event()])


def _append_until_killed(path: str, seed: int, told: str) -> None:
    rng = random.Random(seed)
    with SqliteLog(path) as log, Path(told).open("ab", buffering=0) as acknowledged:
        number = log.end_offset("events", 0)
        while True:
            values = [b"%d" % (number + i) for i in range(rng.randrange(1, 5))]
            number = log.append([event(v) for v in values])[-1].offset + 1
            acknowledged.write(b"%d\n" % number)


def test_what_was_acknowledged_is_there_after_kill_9(tmp_path: Path) -> None:
    path, told = tmp_path / "log.db", tmp_path / "told"
    SqliteLog(path).close()
    spawn = multiprocessing.get_context("spawn")
    for round_ in range(4):
        told.write_bytes(b"")
        process = spawn.Process(
            target=_append_until_killed, args=(str(path), round_, str(told)), daemon=True
        )
        process.start()
        while told.read_bytes().count(b"\n") < 20 + round_ * 7:
            assert process.is_alive()
        os.kill(process.pid or 0, signal.SIGKILL)
        process.join()
        acknowledged = int(told.read_bytes().split(b"\n")[-2])
        with SqliteLog(path) as log:
            records = log.read("events", 0, 0, max_records=10**6)
            assert log.end_offset("events", 0) == len(records) >= acknowledged
            assert [r.value for r in records] == [b"%d" % i for i in range(len(records))]


async def test_the_appender_shares_transactions_and_keeps_each_order(log: SqliteLog) -> None:
    appender = SqliteAppender(log)
    assert (appender.log_id, appender.partitions) == (log.log_id, 4)
    placed = await asyncio.gather(
        *(appender.append([event(b"%d" % n), event(b"%d+" % n)]) for n in range(64))
    )
    await appender.close()
    records = log.read("events", 0, 0)
    assert len(records) == 128
    for n, (first, second) in enumerate(placed):
        assert second.offset == first.offset + 1
        assert records[first.offset].value == b"%d" % n


async def test_the_appender_calls_a_full_log_unreachable(tmp_path: Path) -> None:
    with SqliteLog(tmp_path / "log.db", max_bytes=2**20) as log:
        appender = SqliteAppender(log)
        with pytest.raises(UnreachableError, match="is full"):
            await appender.append([event(b"x" * 2**21)])
        await appender.close()
