"""The sink over a real SQLite log and a real ClickHouse engine in process (chDB)."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from callmeter.log.sqlite_log import SqliteLog
from callmeter_sinks.clickhouse.store import PermanentStoreError, Store
from callmeter_sinks.faults import OriginBreakError, RangeLostError
from callmeter_sinks.ranges import RangeLimits
from callmeter_sinks.sink import Sink
from callmeter_sinks.source import SqliteSource
from callmeter_sinks.writer import PartitionWriter
from support.metered import NOW_US, MeteredStream, Truth
from support.stored import append, expected, sqlite_log, stored
from support.stores import migrated_chdb

SMALL = RangeLimits(max_events=40, linger_s=0.05)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with migrated_chdb(tmp_path / "store") as opened:
        yield opened


@pytest.fixture
def log(tmp_path: Path) -> Iterator[SqliteLog]:
    log = sqlite_log(tmp_path / "log.db")
    yield log
    log.close()


@pytest.fixture
def killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sinks end as if they were killed: without the mark that their intents were carried out."""
    monkeypatch.setattr(PartitionWriter, "rest", lambda *_: None)


def streams_of(log: SqliteLog, seed: int = 1) -> list[MeteredStream]:
    return [MeteredStream(log.log_id, partition, seed) for partition in range(2)]


def truth_of(streams: list[MeteredStream]) -> Truth:
    truth = Truth()
    for stream in streams:
        truth.add(stream.truth)
    return truth


def test_every_figure_of_every_table_equals_the_truth_to_the_pico(
    store: Store, log: SqliteLog
) -> None:
    streams = streams_of(log)
    for stream in streams:
        for parts in (1, 3, 1, 2, 1):
            append(log, stream.partition, stream.checkpoint(envelopes=6, events=20, parts=parts))

    stats = Sink(store, SqliteSource(log), limits=SMALL).drain()

    truth = truth_of(streams)
    assert stored(store) == expected(truth)
    assert stats.events == truth.counts["events"] + truth.counts["refused"]
    assert stats.inserts >= 4
    ledger = store.query(
        "SELECT sum(call_ends), sum(call_begins), sum(costs), sum(metrics), sum(annotations), "
        "sum(experiments), sum(heartbeats), sum(refused) FROM envelopes"
    ).rows[0]
    kinds = ("call_end", "call_begin", "cost", "metric", "annotation", "experiment", "heartbeat")
    assert ledger == tuple(truth.counts[kind] for kind in (*kinds, "refused"))


def test_a_second_drain_adds_what_is_new_and_nothing_twice(
    store: Store, log: SqliteLog, killed: None
) -> None:
    streams = streams_of(log)
    for round_ in range(4):
        for stream in streams:
            append(log, stream.partition, stream.checkpoint(envelopes=2 + round_))
        stats = Sink(store, SqliteSource(log), limits=SMALL).drain()
        assert stored(store) == expected(truth_of(streams))
    assert stats.rebuilds == 2  # the last range of each partition went in again, and was dropped


def test_running_stores_what_comes_and_stops_cleanly(store: Store, log: SqliteLog) -> None:
    streams = streams_of(log)
    sink = Sink(store, SqliteSource(log), limits=SMALL)
    thread = threading.Thread(target=sink.run)
    thread.start()
    try:
        for _ in range(6):
            for stream in streams:
                append(log, stream.partition, stream.checkpoint())
        wanted = truth_of(streams).counts
        deadline = threading.Event()
        while sink.stats.events < wanted["events"] + wanted["refused"]:
            assert thread.is_alive()
            deadline.wait(0.01)
    finally:
        sink.stop()
        thread.join(30)
    assert not thread.is_alive()
    assert stored(store) == expected(truth_of(streams))
    assert sink.stats.worst_visible_us > 0


def test_unknown_is_null_and_words_of_a_usage_are_no_usage(store: Store, log: SqliteLog) -> None:
    stream = MeteredStream(log.log_id, 0)
    append(log, 0, stream.checkpoint(envelopes=20, events=50))
    Sink(store, SqliteSource(log)).drain()
    rows = store.query(
        "SELECT usage_unknown, unpriced, cost IS NULL, input_tokens IS NULL, empty(usage), "
        "inputs != '', count() FROM calls WHERE operation != 'program' GROUP BY ALL"
    ).rows
    seen = {tuple(map(bool, row[:6])) for row in rows}
    assert (True, False, True, True, True, True) in seen  # unknown, though inputs speak of usage
    assert (False, False, False, False, True, False) in seen  # {} is known to be none
    assert (False, True, True, False, False, False) in seen  # unpriced
    for unknown, unpriced, no_cost, no_input, *_ in seen:
        assert no_input == unknown
        assert no_cost == (unknown or unpriced)


def test_ids_keep_their_bits(store: Store, log: SqliteLog) -> None:
    header = (
        b'{"v":1,"type":"envelope","log":"%s","partition":0,"offset":0,"log_ts_us":%d,'
        b'"verdict":"accepted","reason":"","detail":"","source":'
        b'"0198a1b2-0000-7000-8000-0000000000aa","seq":0,"n":2,"sent_us":1,"project":"p",'
        b'"environment":"","service":"","sdk":"","accepted":2,"dropped":{},"last":true,'
        b'"events":2,"refused":0,"bytes":9}\n' % (log.log_id.encode(), NOW_US)
    )
    call = (
        b'{"kind":"call_end","ts_us":1753000000000001,"call_id":"%s",'
        b'"trace_id":"0af7651916cd43dd8448eb211c80319c","started_us":1753000000000000,'
        b'"operation":"chat","status":"ok"%s}\n'
    )
    parent = call % (b"0198a1b2-c3d4-7e5f-8a9b-0c0d0e0f1011", b',"cost_pico":"1"')
    child = call % (
        b"0198a1b2-c3d4-7e5f-8a9b-0c0d0e0f1012",
        b',"parent_span_id":"8a9b0c0d0e0f1011","cost_pico":"-999999999999999999999999"',
    )
    deltas = (
        b'{"v":1,"type":"deltas","log":"%s","partition":0,"first":0,"last":0,"part":0,"parts":1,'
        b'"log_ts_us":1,"controls":{"envelopes":1}}\n' % log.log_id.encode()
    )
    append(log, 0, [header + parent + child, deltas])
    Sink(store, SqliteSource(log)).drain()
    rows = store.query(
        "SELECT toString(call_id), lower(leftPad(hex(span_id), 16, '0')), "
        "lower(leftPad(hex(parent_span_id), 16, '0')), replaceAll(toString(trace_id), '-', ''), "
        "toString(cost), started_at = fromUnixTimestamp64Micro(1753000000000000) "
        "FROM calls ORDER BY idx"
    ).rows
    trace = "0af7651916cd43dd8448eb211c80319c"
    assert rows == [
        ("0198a1b2-c3d4-7e5f-8a9b-0c0d0e0f1011", "8a9b0c0d0e0f1011", "0" * 16, trace,
         "0.000000000001", 1),
        ("0198a1b2-c3d4-7e5f-8a9b-0c0d0e0f1012", "8a9b0c0d0e0f1012", "8a9b0c0d0e0f1011", trace,
         "-999999999999.999999999999", 1),
    ]  # fmt: skip
    assert store.query("SELECT last FROM envelopes").rows == [(True,)]


def test_a_record_the_views_refuse_goes_to_quarantine_and_its_neighbours_go_in(
    store: Store, log: SqliteLog
) -> None:
    stream = MeteredStream(log.log_id, 0, seed=3)
    append(log, 0, stream.checkpoint(envelopes=4))
    good = stream.checkpoint(envelopes=1, events=30)
    bad = good[0].replace(b'"cost_pico":"', b'"cost_pico":"x', 1)
    assert bad != good[0]
    append(log, 0, [bad, *good[1:]])
    append(log, 0, stream.checkpoint(envelopes=4))

    stats = Sink(store, SqliteSource(log)).drain()

    assert stats.quarantined == 1
    (aside,) = store.query("SELECT offset, origin, code, record FROM sink_quarantine").rows
    assert aside[1] == 4
    assert aside[3] == bad.decode()
    origins = [row[0] for row in store.query("SELECT origin FROM envelopes ORDER BY origin").rows]
    assert origins == [0, 1, 2, 3, 5, 6, 7, 8]
    before = stored(store)
    assert Sink(store, SqliteSource(log)).drain().quarantined == 0  # the rebuild leaves it out
    assert stored(store) == before
    assert store.query("SELECT count() FROM system.tables WHERE name LIKE 'probe_%'").rows == [(0,)]


def test_a_record_no_meter_wrote_is_set_aside(store: Store, log: SqliteLog, killed: None) -> None:
    stream = MeteredStream(log.log_id, 0)
    append(log, 0, [b"hello\n", *stream.checkpoint()])
    append(log, 0, [b'{"v":1,"type":"envelope"}\n', *stream.checkpoint()])
    sink = Sink(store, SqliteSource(log))
    assert sink.drain().quarantined == 2
    assert stored(store) == expected(stream.truth)
    again = Sink(store, SqliteSource(log)).drain()
    assert (again.quarantined, again.rebuilds) == (0, 1)
    assert stored(store) == expected(stream.truth)


def test_a_refusal_no_record_is_to_blame_for_stops_the_sink(store: Store, log: SqliteLog) -> None:
    stream = MeteredStream(log.log_id, 0)
    append(log, 0, stream.checkpoint())
    store.command("RENAME TABLE landing TO elsewhere")
    with pytest.raises(PermanentStoreError, match="60"):
        Sink(store, SqliteSource(log)).drain()
    store.command("RENAME TABLE elsewhere TO landing")
    Sink(store, SqliteSource(log)).drain()
    assert stored(store) == expected(stream.truth)


def test_a_hole_stops_the_sink_and_names_both_origins(store: Store, log: SqliteLog) -> None:
    stream = MeteredStream(log.log_id, 0)
    append(log, 0, stream.checkpoint(envelopes=3))
    stream.checkpoint(envelopes=5)  # never reached the log
    truth = stream.truth
    stream.truth = Truth()
    append(log, 0, stream.checkpoint(envelopes=3))
    with pytest.raises(OriginBreakError, match="expected origin 3, found 8: origins 3 to 7"):
        Sink(store, SqliteSource(log)).drain()

    stats = Sink(store, SqliteSource(log), accept_loss=True).drain()
    assert stats.lost_origins == 5
    assert store.query("SELECT origin_first, origin_last, reason FROM sink_losses").rows == [
        (3, 7, "hole")
    ]
    origins = store.query("SELECT origin FROM envelopes ORDER BY origin").rows
    assert [row[0] for row in origins] == [0, 1, 2, 8, 9, 10]
    assert truth.counts["envelopes"] == 8


def test_an_envelope_that_comes_twice_is_never_accepted(store: Store, log: SqliteLog) -> None:
    stream = MeteredStream(log.log_id, 0)
    records = stream.checkpoint()
    append(log, 0, records)
    append(log, 0, records)
    with pytest.raises(OriginBreakError, match="the log holds an envelope twice"):
        Sink(store, SqliteSource(log), accept_loss=True).drain()


def test_a_range_that_retention_removed_is_reported_and_skipped_when_told(
    store: Store, log: SqliteLog, killed: None
) -> None:
    stream = MeteredStream(log.log_id, 0)
    append(log, 0, stream.checkpoint(envelopes=3))
    Sink(store, SqliteSource(log)).drain()
    append(log, 0, stream.checkpoint(envelopes=3))
    log.prune("metered", below={0: 2})
    with pytest.raises(RangeLostError, match=r"offsets 0 to 3 are needed, .* begins at 2"):
        Sink(store, SqliteSource(log)).drain()
    assert Sink(store, SqliteSource(log), accept_loss=True).drain().lost_origins == 3
    assert stored(store) == expected(stream.truth)  # it had been stored; nothing came twice
    assert store.query("SELECT origin_first, origin_last, reason FROM sink_losses").rows == [
        (0, 2, "retention")
    ]


def test_a_wiped_log_begins_a_new_history_beside_the_old_one(store: Store, tmp_path: Path) -> None:
    truth = Truth()
    for name in ("first.db", "second.db"):
        with sqlite_log(tmp_path / name) as log:
            stream = MeteredStream(log.log_id, 0, seed=len(name))
            append(log, 0, stream.checkpoint(envelopes=5))
            Sink(store, SqliteSource(log)).drain()
            truth.add(stream.truth)
    assert stored(store) == expected(truth)
    assert store.query("SELECT uniqExact(log_id) FROM envelopes").rows == [(2,)]


def test_a_log_id_that_changes_in_the_stream_begins_a_new_history(
    store: Store, log: SqliteLog
) -> None:
    old = MeteredStream("0198a1b2-0000-4000-8000-000000000001", 0, seed=5)
    new = MeteredStream(log.log_id, 0, seed=6)
    append(log, 0, old.checkpoint(envelopes=4))
    append(log, 0, old.checkpoint(envelopes=2))
    append(log, 0, new.checkpoint(envelopes=4))
    truth = Truth()
    truth.add(old.truth)
    truth.add(new.truth)
    for _ in range(2):
        Sink(store, SqliteSource(log)).drain()
        assert stored(store) == expected(truth)


def test_the_store_is_wiped_and_the_log_stays(log: SqliteLog, tmp_path: Path) -> None:
    stream = MeteredStream(log.log_id, 0)
    append(log, 0, stream.checkpoint(envelopes=5))
    for name in ("one", "two"):
        with migrated_chdb(tmp_path / name) as store:
            Sink(store, SqliteSource(log)).drain()
            assert stored(store) == expected(stream.truth)


def test_a_log_that_does_not_begin_at_its_beginning_is_written_down(
    store: Store, log: SqliteLog
) -> None:
    stream = MeteredStream(log.log_id, 0)
    stream.checkpoint(envelopes=7)
    append(log, 0, stream.checkpoint(envelopes=2))
    assert Sink(store, SqliteSource(log)).drain().lost_origins == 7
    assert store.query("SELECT origin_first, origin_last, reason FROM sink_losses").rows == [
        (0, 6, "before_first")
    ]


def test_a_sink_at_rest_does_not_mind_what_retention_removes(store: Store, log: SqliteLog) -> None:
    stream = MeteredStream(log.log_id, 0)
    append(log, 0, stream.checkpoint(envelopes=3))
    Sink(store, SqliteSource(log)).drain()
    assert log.prune("metered", below={0: 100}) == 4
    append(log, 0, stream.checkpoint(envelopes=3))
    stats = Sink(store, SqliteSource(log)).drain()
    assert (stats.rebuilds, stats.lost_origins) == (0, 0)
    assert stored(store) == expected(stream.truth)


def test_a_checkpoint_over_the_bound_on_bytes_goes_in_by_pieces(
    store: Store, log: SqliteLog, killed: None
) -> None:
    stream = MeteredStream(log.log_id, 0)
    append(log, 0, stream.checkpoint(envelopes=30, events=40, parts=4))
    limits = RangeLimits(max_bytes=30_000)
    stats = Sink(store, SqliteSource(log), limits=limits).drain()
    assert stats.inserts > 5
    assert stored(store) == expected(stream.truth)
    assert Sink(store, SqliteSource(log), limits=limits).drain().rebuilds == 1
    assert stored(store) == expected(stream.truth)
