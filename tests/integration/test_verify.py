"""verify on a real engine: equal where it is, and different at every kind of damage."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import orjson
import pytest

from callmeter_sinks.checks import outcome, rollups
from callmeter_sinks.clickhouse.chdb_store import ChdbStore
from callmeter_sinks.clickhouse.opening import open_store
from callmeter_sinks.clickhouse.shim import ShimServer
from callmeter_sinks.verify import VerifyResult, verify
from support.ledger import LOG, Book, us
from support.metered import MeteredStream
from support.stores import empty, land, migrated_chdb

STREAM_LOG = "019a0000-0000-7000-8000-00000000000e"


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChdbStore]:
    with migrated_chdb(tmp_path_factory.mktemp("verify") / "db") as opened:
        yield opened


@pytest.fixture
def store(engine: ChdbStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[ChdbStore]:
    """The engine, emptied afterwards; differences are looked at again without waiting."""
    monkeypatch.setattr(outcome, "PAUSE_S", 0.0)
    yield engine
    empty(engine)


def book() -> Book:
    written = Book()
    written.envelope(
        written.call(number=1, latency_us=1, ttft_us=2**40),
        written.call(number=2, model="b", latency_us=None, usage=None, cost=None),
        written.call(number=3, started="2026-03-02T00:00", status="error", cost=None),
    )
    written.checkpoint()
    written.envelope(
        written.call(number=4, started="2026-03-02T01:00", operation="program", cost=None),
        {"kind": "cost", "ts_us": us("2026-03-02T01:00"), "started_us": us("2026-03-01T12:00"),
         "cost_pico": "-5", "source": "bill"},
        {"kind": "refused", "reason": "bad_json", "detail": "", "line": "x"},
        {"kind": "heartbeat", "ts_us": us("2026-03-02T01:00"), "open": 1},
    )  # fmt: skip
    written.checkpoint()
    return written


def differing(result: VerifyResult) -> set[str]:
    return {check.what for check in result.checks if not check.equal}


def test_an_empty_store_is_equal(store: ChdbStore) -> None:
    result = verify(store)
    assert result.equal
    assert not result.gaps
    assert not result.unverifiable


def test_what_the_meter_wrote_is_equal_in_every_check(store: ChdbStore) -> None:
    land(store, book().take())
    result = verify(store)
    assert differing(result) == set()
    said = orjson.loads(orjson.dumps(result.to_json()))
    assert said["equal"] is True
    calls = next(check for check in said["checks"] if check["what"] == "calls")
    assert calls == {"what": "calls", "raw": 4, "rollups": 4, "equal": True}
    cost = next(check for check in said["checks"] if check["what"] == "cost_usd")
    assert cost["raw"] == cost["rollups"] == "0.000999999995"
    assert said["gaps"] == said["unverifiable"] == []


def test_streams_of_many_partitions_and_months_are_equal(store: ChdbStore) -> None:
    for partition in range(3):
        stream = MeteredStream(STREAM_LOG, partition, seed=partition + 10)
        at = 0
        for _ in range(4):
            at = land(store, list(stream.records(5, parts=2)), partition=partition, at=at)
    result = verify(store)
    assert differing(result) == set()
    by_what = {check.what: check for check in result.checks}
    assert by_what["latency histogram"].raw > 100
    assert by_what["latency histogram"].raw == by_what["latency_count"].raw


def test_days_of_many_rows_are_read_piece_by_piece_with_the_same_answer(
    store: ChdbStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    land(store, book().take())
    for where in ("model = 'b'", "start >= '2026-03-02 00:00:00'"):
        store.command(f"INSERT INTO rollup_1m SELECT * FROM rollup_1m AS r WHERE {where}")
    longest = []

    def raw_against(store: ChdbStore, piece: rollups._Chunk, suffix: str) -> outcome.Comparison:
        longest.append(piece.until - piece.since)
        return whole(store, piece, suffix)

    whole = rollups._raw_against
    monkeypatch.setattr(rollups, "_raw_against", raw_against)
    since = datetime(2026, 3, 1, 11, 59, tzinfo=UTC)
    at_once = verify(store, since).to_json()
    assert max(longest) > timedelta(days=1)
    longest.clear()
    monkeypatch.setattr(rollups, "PIECE_ROWS", 1)
    assert verify(store, since).to_json() == at_once
    assert max(longest) <= timedelta(hours=8)
    wrong = next(check for check in at_once["checks"] if check["what"] == "calls")
    assert wrong["differing"] > 1


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        ("ALTER TABLE calls DELETE WHERE idx = 1 AND origin = 0",
         {"calls", "cost_usd", "calls by control totals", "calls in the ledger",
          "latency histogram", "ttft histogram", "latency_count"}),
        ("ALTER TABLE calls UPDATE cost = 0.002 WHERE origin = 0 AND idx = 1",
         {"cost_usd", "cost_usd by control totals"}),
        ("ALTER TABLE calls UPDATE latency_us = 3 WHERE origin = 0 AND idx = 1",
         {"latency_sum_us", "latency histogram"}),
        ("ALTER TABLE calls UPDATE usage = map('input', 15) WHERE origin = 0 AND idx = 1",
         {"usage", "usage by control totals"}),
        ("ALTER TABLE costs DELETE WHERE 1", {"cost_usd", "costs in the ledger"}),
        ("ALTER TABLE dead_letters DELETE WHERE 1", {"dead_letters in the ledger"}),
        ("ALTER TABLE envelopes DELETE WHERE origin = 0",
         {"envelopes by control totals", "calls in the ledger"}),
        ("ALTER TABLE envelopes UPDATE n = 9 WHERE origin = 1",
         {"lines of accepted envelopes", "events by the headers' counters, less gaps"}),
        ("ALTER TABLE envelopes UPDATE heartbeats = 2 WHERE origin = 1", {"events by kind"}),
        ("ALTER TABLE rollup_controls DELETE WHERE first = 0", {"checkpoints without holes"}),
        ("INSERT INTO rollup_controls SELECT * FROM rollup_controls WHERE first = 0",
         {"calls by control totals", "checkpoints without holes"}),
        ("INSERT INTO rollup_1m SELECT * FROM rollup_1m WHERE model = 'b'",
         {"calls", "usage_unknown", "calls (hours)", "calls (days)"}),
        ("INSERT INTO rollup_1h SELECT * FROM rollup_1h WHERE model = 'b'", {"calls (hours)"}),
        ("INSERT INTO rollup_1d SELECT * FROM rollup_1d WHERE model = 'b'", {"calls (days)"}),
        ("INSERT INTO hist_1m SELECT * FROM hist_1m", {"latency histogram", "ttft histogram"}),
    ],
)  # fmt: skip
def test_every_damage_is_found(store: ChdbStore, damage: str, found: set[str]) -> None:
    written = book()
    written.envelope(written.call(number=9))
    written.checkpoint()
    land(store, written.take())
    assert differing(verify(store)) == set()
    store.command(damage, settings={"mutations_sync": 2})
    result = verify(store)
    assert not result.equal
    missed = {what for what in found if what not in differing(result)}
    assert not missed


def test_two_errors_that_cancel_are_found(store: ChdbStore) -> None:
    land(store, book().take())
    store.command("INSERT INTO rollup_1m SELECT * REPLACE ('c' AS model) FROM rollup_1m AS r "
                  "WHERE r.model = 'b'")  # fmt: skip
    store.command("ALTER TABLE rollup_1m DELETE WHERE model = 'b'", settings={"mutations_sync": 2})
    check = next(check for check in verify(store).checks if check.what == "calls")
    assert check.raw == check.rollups
    assert not check.equal
    assert check.differing == 2


def test_a_row_twice_is_found_by_its_identity(store: ChdbStore) -> None:
    land(store, book().take())
    store.command("INSERT INTO calls SELECT * FROM calls WHERE origin = 0 AND idx = 2")
    found = differing(verify(store))
    assert {"calls stored twice", "calls in the ledger", "calls"} <= found


def test_controls_that_say_something_else(store: ChdbStore) -> None:
    written = Book()
    written.envelope(written.call())
    written.checkpoint(calls=2)
    land(store, written.take())
    assert differing(verify(store)) == {"calls by control totals"}


def test_records_past_the_last_checkpoint_are_not_judged_yet(store: ChdbStore) -> None:
    written = book()
    written.envelope({"kind": "heartbeat", "ts_us": us("2026-03-02T01:00"), "open": 1})
    land(store, written.take())
    assert verify(store).equal


def test_a_gap_is_named_and_is_no_difference(store: ChdbStore) -> None:
    written = Book()
    written.envelope(written.call(number=1))
    written.envelope(written.call(number=2), seq=3, accepted=8)
    written.checkpoint()
    land(store, written.take())
    result = verify(store)
    assert result.equal
    (gap,) = result.to_json()["gaps"]
    assert (gap["first"], gap["last"], gap["envelopes"], gap["events"]) == (1, 2, 2, 6)


def test_counters_that_no_gap_explains_are_a_difference(store: ChdbStore) -> None:
    written = Book()
    written.envelope(written.call(number=1), accepted=5)
    written.checkpoint()
    land(store, written.take())
    assert differing(verify(store)) == {"events by the headers' counters, less gaps"}


def test_a_period_looks_at_its_own_windows(store: ChdbStore) -> None:
    land(store, book().take())
    store.command("INSERT INTO rollup_1m SELECT * FROM rollup_1m WHERE model = 'b'")
    first = datetime(2026, 3, 1, tzinfo=UTC)
    second = first + timedelta(days=1)
    assert "calls" in differing(verify(store, first, second))
    assert differing(verify(store, second, second + timedelta(days=1))) == set()
    minute = datetime(2026, 3, 1, 12, 0, 30, tzinfo=UTC)
    result = verify(store, minute, minute + timedelta(seconds=10))
    assert next(c for c in result.checks if c.what == "calls").raw == 2


def test_accepted_losses_and_quarantine_are_unverifiable(store: ChdbStore) -> None:
    written = Book()
    written.envelope(written.call(number=1))
    written.checkpoint()
    written.origin = written.first = 5
    written.envelope(written.call(number=2))
    written.checkpoint()
    land(store, written.take())
    hole = next(c for c in verify(store).checks if c.what == "checkpoints without holes")
    assert not hole.equal
    assert hole.examples == (f"log {LOG} partition 0 origins 1..4",)
    store.command(
        "INSERT INTO sink_losses (log_id, partition, origin_first, origin_last) "
        "SELECT {log:UUID}, 0, 1, 4", {"log": LOG},
    )  # fmt: skip
    store.command(
        "INSERT INTO sink_quarantine (topic, partition, offset, reason) "
        "SELECT 'metered', 0, 9, 'too odd'"
    )
    result = verify(store)
    assert result.equal
    assert {each.reason for each in result.unverifiable} == {
        "accepted as lost", "in quarantine: too odd",
    }  # fmt: skip


def test_what_retention_may_have_removed_is_unverifiable(store: ChdbStore) -> None:
    now = store.query("SELECT now('UTC')").rows[0][0].replace(tzinfo=UTC)
    old = Book(log_ts_us=int((now - timedelta(days=10)).timestamp()) * 1_000_000)
    started = (now - timedelta(days=10)).strftime("%Y-%m-%dT%H:%M:%S")
    old.envelope(old.call(number=1, started=started))
    old.checkpoint()
    old.log_ts_us = int(now.timestamp()) * 1_000_000
    recent = now.strftime("%Y-%m-%dT%H:%M:%S")
    old.envelope(old.call(number=2, started=recent))
    old.checkpoint()
    land(store, old.take())
    assert verify(store).equal
    tables = ("calls", "costs")
    try:
        for table in tables:
            store.command(
                f"ALTER TABLE {table} MODIFY TTL toDateTime(log_ts) + INTERVAL 5 DAY",
                settings={"mutations_sync": 2},
            )
        store.command("OPTIMIZE TABLE calls FINAL")
        assert store.query("SELECT count() FROM calls").rows == [(1,)]
        result = verify(store)
        assert differing(result) == set()
        assert any("retention" in each.reason for each in result.unverifiable)
        whole = verify(store, since=now.replace(hour=0, minute=0, second=0, microsecond=0))
        assert whole.equal
        assert next(c for c in whole.checks if c.what == "calls").raw == 1
    finally:
        for table in tables:
            store.command(f"ALTER TABLE {table} REMOVE TTL")


def test_a_store_that_is_written_to_meanwhile_stays_equal(
    store: ChdbStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outcome, "PAUSE_S", 0.05)
    stream = MeteredStream(STREAM_LOG, 0, seed=99, months=1)
    stop = threading.Event()
    inserts = 0

    def write() -> None:
        nonlocal inserts
        at = 0
        while not stop.is_set() and inserts < 400:
            at = land(store, stream.checkpoint(), at=at)
            inserts += 1

    writer = threading.Thread(target=write)
    writer.start()
    try:
        results = [verify(store) for _ in range(3)]
    finally:
        stop.set()
        writer.join()
    assert inserts > 3
    # The generator's duplicates take sequence numbers: its gaps are not looked at here.
    for result in [*results, verify(store)]:
        assert differing(result) - {"events by the headers' counters, less gaps"} == set()


def test_a_reader_beside_the_owner_verifies_too(store: ChdbStore) -> None:
    land(store, book().take())
    with ShimServer(store) as shim:
        reader = open_store(shim.url, {})
        try:
            assert verify(reader) == verify(store)
        finally:
            reader.close()
