"""Retention counts from arrival, is a setting, and is off in the embedded form."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from callmeter.errors import ConfigError
from callmeter.log.sqlite_log import SqliteLog
from callmeter_sinks.clickhouse.retention import SERVER_DAYS, apply_retention
from callmeter_sinks.clickhouse.store import Store
from callmeter_sinks.sink import Sink
from callmeter_sinks.source import SqliteSource
from support import metered
from support.metered import MeteredStream
from support.stored import append
from support.stores import migrated_chdb

DAY_US = 86_400_000_000


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with migrated_chdb(tmp_path / "store") as opened:
        yield opened


def test_embedded_keeps_everything(store: Store) -> None:
    assert apply_retention(store) == []
    assert "TTL" not in created(store, "calls")


def test_every_table_takes_a_ttl_and_gives_it_back(store: Store) -> None:
    assert set(apply_retention(store, dict.fromkeys(SERVER_DAYS, 7))) == set(SERVER_DAYS)
    assert apply_retention(store, dict.fromkeys(SERVER_DAYS, 7)) == []
    for table in SERVER_DAYS:
        assert "TTL toDateTime(log_ts) + toIntervalDay(7)" in created(store, table)
    assert apply_retention(store, {"calls": 90}) == ["calls"]
    assert apply_retention(store) == []
    assert "TTL toDateTime(log_ts) + toIntervalDay(90)" in created(store, "calls")
    assert set(apply_retention(store, dict.fromkeys(SERVER_DAYS))) == set(SERVER_DAYS)
    assert "TTL" not in created(store, "calls")


def test_old_arrivals_go_and_late_events_stay(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_us = time.time_ns() // 1000
    apply_retention(store, dict.fromkeys(SERVER_DAYS, 30))
    kept = gone = 0
    for age_days in (40, 0):
        # Events are up to a month older than their arrival: event time alone would remove both.
        monkeypatch.setattr(metered, "NOW_US", now_us - age_days * DAY_US)
        with SqliteLog(tmp_path / f"log{age_days}.db", partitions=1) as log:
            stream = MeteredStream(log.log_id, 0, months=2)
            append(log, 0, stream.checkpoint(envelopes=5, events=20))
            Sink(store, SqliteSource(log)).drain()
        gone, kept = kept, stream.truth.counts["call_end"]
    assert gone > 0
    store.command("OPTIMIZE TABLE calls FINAL")
    store.command("OPTIMIZE TABLE rollup_1m FINAL")
    assert store.query("SELECT count() FROM calls").rows == [(kept,)]
    oldest = store.query("SELECT min(started_at) < now() - INTERVAL 30 DAY FROM calls").rows
    assert oldest == [(1,)]
    assert store.query("SELECT sum(calls) FROM rollup_1m").rows == [(kept,)]


def test_nonsense_is_refused(store: Store) -> None:
    with pytest.raises(ConfigError, match="sink_intents has no retention"):
        apply_retention(store, {"sink_intents": 3})
    with pytest.raises(ConfigError, match="calls cannot be kept 0 days"):
        apply_retention(store, {"calls": 0})


def created(store: Store, table: str) -> str:
    return str(
        store.query(
            "SELECT create_table_query FROM system.tables WHERE name = {name:String}",
            {"name": table},
        ).rows[0][0]
    )
