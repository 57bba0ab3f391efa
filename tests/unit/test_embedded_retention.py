"""What is past retention goes, but never before whoever reads it has read it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from callmeter.clock import ManualClock
from callmeter.embedded import prune
from callmeter.log.record import NewRecord
from callmeter.log.sqlite_log import SqliteLog
from callmeter_sinks.clickhouse.store import Result

DAY_US = 86_400_000_000


class StoredUpTo:
    """A store that holds the metered records below an offset of partition 0."""

    def __init__(self, offset: int) -> None:
        self._offset = offset

    def query(self, sql: str, params: Mapping[str, Any]) -> Result:
        return Result(("partition", "metered_offset"), [(0, self._offset)])


def first(log: SqliteLog, topic: str) -> tuple[int, int]:
    return log.first_offset(topic, 0), log.end_offset(topic, 0)


def test_only_what_is_old_and_read_is_deleted(tmp_path: Path) -> None:
    clock = ManualClock(time.time_ns() // 1000 - 8 * DAY_US)
    with SqliteLog(tmp_path / "log.db", partitions=1, clock=clock) as log:
        for topic in ("events", "metered", "spend"):
            log.append([NewRecord(topic, b"k", b"%d" % n, 0) for n in range(5)])
        log.commit("meter-state", 0, rows={}, outputs=[], next_offset=3, expected_next=None)
        prune(log, StoredUpTo(2))  # type: ignore[arg-type]
        assert first(log, "events") == (3, 5), "the meter has read three"
        assert first(log, "metered") == (2, 5), "the sink has stored two and works on the third"
        assert first(log, "spend") == (0, 5), "the watch has read none"


def test_what_is_young_stays_though_it_is_read(tmp_path: Path) -> None:
    with SqliteLog(tmp_path / "log.db", partitions=1) as log:
        log.append([NewRecord("events", b"k", b"v", 0)])
        log.commit("meter-state", 0, rows={}, outputs=[], next_offset=1, expected_next=None)
        prune(log, StoredUpTo(1))  # type: ignore[arg-type]
        assert first(log, "events") == (0, 1)
