"""The sink when answers are cut off after the engine has worked, and when the store goes away."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from callmeter.errors import UnreachableError
from callmeter_sinks.clickhouse.chdb_store import ChdbStore
from callmeter_sinks.clickhouse.migrate import migrate
from callmeter_sinks.clickhouse.opening import open_store
from callmeter_sinks.clickhouse.shim import ShimServer
from callmeter_sinks.ranges import RangeLimits
from callmeter_sinks.sink import Sink
from callmeter_sinks.source import SqliteSource
from support.chaos import ChaosRun
from support.metered import MeteredStream
from support.stored import append, expected, sqlite_log, stored

SMALL = RangeLimits(max_events=30, linger_s=0.0)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[ChdbStore]:
    engine = ChdbStore(tmp_path / "store")
    migrate(engine)
    yield engine
    engine.close()


def test_rows_once_though_answers_are_cut_off(engine: ChdbStore, tmp_path: Path) -> None:
    with ShimServer(engine, writable=True) as server, sqlite_log(tmp_path / "log.db") as log:
        stream = MeteredStream(log.log_id, 0)
        for _ in range(4):
            append(log, 0, stream.checkpoint(envelopes=4, events=12))
        store = open_store(server.url)
        try:
            server.cut.left = 7  # claims, intents and landing alike; twice in a row too
            stats = Sink(store, SqliteSource(log), limits=SMALL, first_retry_s=0.01).drain()
        finally:
            store.close()
        assert server.cut.done == 7
        assert stats.inserts >= 2
    assert stored(engine) == expected(stream.truth)


class AwayStore(ChdbStore):
    """A store that can be away: whatever reaches it then is refused as by a closed port."""

    away = False

    def query(self, *args, **more):
        self._reach()
        return super().query(*args, **more)

    def insert_block(self, *args, **more):
        self._reach()
        return super().insert_block(*args, **more)

    def _reach(self) -> None:
        if self.away:
            raise UnreachableError("connection refused")


@pytest.mark.chaos
@pytest.mark.timeout(1200)
def test_waits_for_a_store_that_is_away_with_bounded_memory(
    tmp_path: Path, chaos: ChaosRun
) -> None:
    """Away for a second, in the long run for a minute, while more and more comes."""
    # A minute's backlog in ranges as small as a second's would take a quarter of an hour.
    times = chaos.pick(short=1, long=20)
    limits = RangeLimits(max_events=30 * times, linger_s=0.0, max_bytes=20_000 * times)
    store = AwayStore(tmp_path / "store")
    migrate(store)
    with sqlite_log(tmp_path / "log.db") as log:
        streams = [MeteredStream(log.log_id, partition) for partition in range(2)]
        sink = Sink(store, SqliteSource(log), limits=limits, first_retry_s=0.01)
        thread = threading.Thread(target=sink.run)
        thread.start()
        try:
            append(log, 0, streams[0].checkpoint())
            until(lambda: sink.stats.inserts > 0)
            store.away = True
            back_s = time.monotonic() + chaos.pick(short=1, long=60)
            rounds = largest = buffered = 0
            while rounds < 10 or time.monotonic() < back_s:
                rounds += 1
                for stream in streams:
                    values = stream.checkpoint(envelopes=6, events=20)
                    append(log, stream.partition, values)
                    largest = max(largest, *map(len, values))
                buffered = max(buffered, sink.stats.buffered_bytes)
                time.sleep(0.05)
            until(lambda: sink.stats.waiting_for is not None)
            until(lambda: sink.stats.retries > 5)
            chaos.count("checkpoints while the store was away", 2 * rounds)
            assert max(buffered, sink.stats.buffered_bytes) <= 2 * (limits.max_bytes + largest)
            assert sink.stats.inserts < 20
            # At most twenty records of each are held; all others show as lag, though it waits.
            behind = sum(log.end_offset("metered", p) for p in range(2)) - 40 * times
            assert behind > 0
            until(lambda: sum(sink.stats.lag.values()) >= behind)
            store.away = False
            wanted = sum(s.truth.counts["events"] + s.truth.counts["refused"] for s in streams)
            until(lambda: sink.stats.events == wanted, chaos.pick(short=90, long=900))
            assert sink.stats.waiting_for is None
        finally:
            store.away = False
            sink.stop()
            thread.join(60)
        truth = streams[0].truth
        truth.add(streams[1].truth)
        assert stored(store) == expected(truth)
    store.close()


def until(condition: object, patience_s: float = 90) -> None:
    """Wait for something another thread brings about; a test that waits too long has failed."""
    assert callable(condition)
    deadline_s = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < deadline_s, "it never came"
        time.sleep(0.02)
