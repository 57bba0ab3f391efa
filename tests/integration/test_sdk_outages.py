"""The collector is away, refuses, hangs, hangs up: the host notices nothing, and all adds up."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from support.moody_collector import AWAY, HANGS, HANGS_UP, REFUSES, WELL, moody_collector
from support.steady_host import SLACK, SteadyHost

CAP = 512 * 1024


def spooling(tmp_path: Path, mode: str) -> dict[str, Any]:
    spool = {"spool_dir": str(tmp_path / "spool"), "durable": mode == "durable"}
    return {} if mode == "memory" else spool


@pytest.mark.parametrize("mode", ["durable", "spool"])
@pytest.mark.parametrize("mood", [AWAY, REFUSES, HANGS, HANGS_UP])
def test_a_spool_loses_nothing(tmp_path: Path, mode: str, mood: str) -> None:
    with (
        moody_collector(tmp_path / "log.db") as collector,
        SteadyHost(
            collector.url, max_queue_bytes=CAP, timeout_s=0.5, **spooling(tmp_path, mode)
        ) as host,
    ):
        host.go_on(0.4)
        collector.mood = mood
        host.go_on(1.2)
        collector.mood = WELL
        host.go_on(0.3)
        result = host.finish()
        assert collector.seen[mood] > 0
        assert host.client.stats().retries > 0
        assert result.ok, result
        assert (result.accepted, result.delivered, result.pending) == (host.made, host.made, 0)
        assert collector.metered() == {f"m{i}": 1 for i in range(host.made)}
        assert host.most_bytes <= CAP * SLACK
    assert [path for path in (tmp_path / "spool").glob("*/*") if path.stat().st_size] == []


@pytest.mark.parametrize("drop", ["oldest", "newest"])
@pytest.mark.parametrize("mood", [AWAY, REFUSES])
def test_memory_alone_drops_what_it_counts(tmp_path: Path, mood: str, drop: str) -> None:
    with (
        moody_collector(tmp_path / "log.db") as collector,
        SteadyHost(collector.url, max_queue_bytes=CAP, drop=drop, per_s=20_000) as host,
    ):
        host.go_on(0.2)
        collector.mood = mood
        while not host.client.stats().dropped:
            host.go_on(0.05)
        collector.mood = WELL
        result = host.finish()
        dropped = sum(result.dropped.values())
        assert set(result.dropped) == {"queue_full"}
        assert not result.ok
        assert result.pending == 0
        assert result.accepted == host.made == result.delivered + dropped
        counted = collector.metered()
        assert set(counted.values()) == {1}
        assert len(counted) == result.delivered
        assert host.most_bytes <= CAP * SLACK


@pytest.mark.parametrize("mode", ["memory", "spool", "durable"])
def test_a_collector_that_comes_late(tmp_path: Path, mode: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with SteadyHost(f"http://127.0.0.1:{port}", **spooling(tmp_path, mode)) as host:
        host.go_on(0.6)
        before = host.client.stats()
        assert before.delivered == 0
        assert before.error
        if mode != "memory":
            assert before.spooled > 0
        with moody_collector(tmp_path / "log.db", port) as collector:
            result = host.finish()
            assert result.ok, result
            assert collector.metered() == {f"m{i}": 1 for i in range(host.made)}


def test_a_full_spool_counts_what_it_gives_up(tmp_path: Path) -> None:
    cap = 2**20
    with (
        moody_collector(tmp_path / "log.db") as collector,
        SteadyHost(
            collector.url,
            per_s=20_000,
            max_queue_bytes=CAP,
            spool_max_bytes=cap,
            **spooling(tmp_path, "durable"),
        ) as host,
    ):
        collector.mood = AWAY
        while not host.client.stats().dropped:
            host.go_on(0.05)
        on_disk = sum(path.stat().st_size for path in (tmp_path / "spool").glob("*/*.seg"))
        assert on_disk <= cap + 2**18
        collector.mood = WELL
        result = host.finish()
        assert set(result.dropped) == {"spool_full"}
        assert host.made == result.delivered + sum(result.dropped.values())
        counted = collector.metered()
        assert set(counted.values()) == {1}
        assert len(counted) == result.delivered
        assert host.most_bytes <= CAP * SLACK


def test_a_spool_that_cannot_be_written_leaves_delivery_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        moody_collector(tmp_path / "log.db") as collector,
        SteadyHost(collector.url, spool_dir=str(tmp_path / "file" / "x"), durable=True) as host,
    ):
        host.go_on(0.2)
        collector.mood = REFUSES
        host.go_on(0.3)
        collector.mood = WELL
        result = host.finish()
        assert result.ok, result
        assert collector.metered() == {f"m{i}": 1 for i in range(host.made)}


def test_the_next_process_delivers_what_a_closed_one_left(tmp_path: Path) -> None:
    spool = spooling(tmp_path, "spool")
    with moody_collector(tmp_path / "log.db") as collector:
        collector.mood = REFUSES
        with SteadyHost(collector.url, shutdown_timeout_s=0.3, **spool) as host:
            host.go_on(0.3)
            left = host.finish(0.3)
        stats = host.client.stats()
        assert left.pending == left.spooled == host.made
        assert (stats.pending, stats.dropped) == (stats.spooled, {})
        assert stats.pending == host.made + 1  # and the heartbeat of a clean close
        collector.mood = WELL
        with SteadyHost(collector.url, **spool) as heir:
            while heir.client.stats().recovered < host.made:
                heir.go_on(0.02)
            result = heir.finish()
            assert (result.ok, result.delivered) == (True, heir.made)
        counted = collector.metered()
        assert {f"m{i}" for i in range(host.made)} <= set(counted)
        assert sum(counted.values()) == host.made + heir.made
