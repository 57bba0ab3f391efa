"""Alerts, budgets, statuses and calls in flight: from the log into their tables, exactly once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from callmeter.cli.app import run
from callmeter.log.record import NewRecord
from callmeter.log.sqlite_log import SqliteLog
from callmeter_sinks.audit import AuditReader
from callmeter_sinks.clickhouse.shim import ShimServer
from callmeter_sinks.clickhouse.store import Store
from callmeter_sinks.forget import forget
from callmeter_sinks.group import SinkGroup
from callmeter_sinks.queries import Queries
from callmeter_sinks.queries.arrivals import Arrivals
from callmeter_sinks.sink import Sink
from callmeter_sinks.source import SqliteSource
from callmeter_sinks.streams import STREAMS
from callmeter_sinks.writer import PartitionWriter
from support.signals import AT_US, CALL, SOURCE, alert, budget, forgotten, live, status
from support.stored import sqlite_log
from support.stores import migrated_chdb


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with migrated_chdb(tmp_path_factory.mktemp("signals") / "store") as opened:
        yield opened


@pytest.fixture
def store(engine: Store) -> Iterator[Store]:
    """The engine, with empty tables."""
    yield engine
    for table in ("alerts", "gaps", "budgets", "budget_status", "budget_now", "in_flight", "audit",
                  "sink_intents", "sink_claims", "sink_quarantine"):  # fmt: skip
        engine.command(f"TRUNCATE TABLE {table}")


@pytest.fixture
def log(tmp_path: Path) -> Iterator[SqliteLog]:
    log = sqlite_log(tmp_path / "log.db")
    yield log
    log.close()


@pytest.fixture
def killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sinks end as if they were killed: without the mark that their intents were carried out."""
    monkeypatch.setattr(PartitionWriter, "rest", lambda *_: None)


def group(store: Store, log: SqliteLog) -> SinkGroup:
    return SinkGroup([Sink(store, SqliteSource(log, topic)) for topic in STREAMS])


def count(store: Store, table: str) -> int:
    return int(store.query(f"SELECT count() FROM {table}").rows[0][0])


def test_topics_without_a_record_cost_nothing(store: Store, log: SqliteLog) -> None:
    for topic in STREAMS:
        if topic != "metered":
            Sink(store, SqliteSource(log, topic)).drain()
    assert count(store, "sink_claims") == 0
    log.append([alert(log.log_id, 1)])
    Sink(store, SqliteSource(log, "alerts")).drain()
    assert count(store, "sink_claims") == 1


def test_every_topic_goes_into_its_tables_once(store: Store, log: SqliteLog, killed: None) -> None:
    gap = {"source": SOURCE, "first_seq": 3, "last_seq": 5, "value": "3"}
    log.append(
        [
            budget(),
            alert(log.log_id, 1, measure="cost", threshold="50%", value="1", limit="2"),
            alert(log.log_id, 2, "gap", **gap),
            alert(log.log_id, 3, "stuck", call_id=CALL, trace_id="ab" * 16, project="shop"),
            live(log.log_id, "shop", gpt=2, mini=1),
            status(log.log_id, 4_000_000_000_000),
            status(log.log_id, 1, "al|ice"),
        ]
    )
    for _ in range(3):
        group(store, log).drain()
    tables = ("alerts", "gaps", "budgets", "budget_status", "budget_now", "in_flight")
    assert [count(store, table) for table in tables] == [3, 1, 1, 2, 2, 1]
    ask = Queries(store)
    first = ask.alerts(rule="team")[0]
    assert (first.value, first.limit, first.threshold) == (1, 2, "50%")
    assert [row.call_id for row in ask.stuck(project="shop")] == [CALL]
    assert [(row.key["model"], row.open) for row in ask.in_flight(["model"])] == [
        ("gpt", 2), ("mini", 1),
    ]  # fmt: skip
    whole, alice = ask.budget_status()
    assert (whole.entity, whole.spend_usd, whole.limit_usd) == ("", Decimal(4), Decimal(5))
    assert whole.forecast_usd == Decimal(6)  # 2 USD an hour for the hour that is left
    assert (alice.entity, alice.spend_usd) == ("al|ice", Decimal("1E-12"))
    assert (whole.scope, whole.thresholds) == ({"project": ["shop", "web*"]}, ["50%"])


def test_newer_words_count_and_older_ones_are_kept(store: Store, log: SqliteLog) -> None:
    for spend in (1, 2, 3):
        log.append([status(log.log_id, spend), live(log.log_id, "shop", gpt=spend)])
        group(store, log).drain()
    ask = Queries(store)
    assert count(store, "budget_status") == 3
    assert [row.spend_usd for row in ask.budget_status()] == [Decimal("3E-12")]
    assert [row.open for row in ask.in_flight([])] == [3]
    log.append([forgotten(), live(log.log_id, "shop")])
    group(store, log).drain()
    assert ask.budget_status() == []
    assert ask.in_flight() == []


def test_what_compaction_took_from_a_range_that_is_read_again(
    store: Store, log: SqliteLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sink dies between intent and insert; meanwhile every record of the range is superseded."""

    def dies(self: PartitionWriter, rng: object) -> None:
        raise KeyboardInterrupt

    log.append([status(log.log_id, 1), status(log.log_id, 1, "x"), status(log.log_id, 1, "y")])
    with monkeypatch.context() as patched:
        patched.setattr(PartitionWriter, "_insert", dies)
        with pytest.raises(KeyboardInterrupt):
            Sink(store, SqliteSource(log, "budget-status")).drain()
    log.append([status(log.log_id, 2), status(log.log_id, 2, "x")])
    stats = Sink(store, SqliteSource(log, "budget-status")).drain()
    assert stats.rebuilds == 1
    assert {(row.entity, row.spend_usd) for row in Queries(store).budget_status()} == {
        ("", Decimal("2E-12")), ("x", Decimal("2E-12")), ("y", Decimal("1E-12")),
    }  # fmt: skip
    with monkeypatch.context() as patched:
        patched.setattr(PartitionWriter, "_insert", dies)
        log.append([status(log.log_id, 3)])
        with pytest.raises(KeyboardInterrupt):
            Sink(store, SqliteSource(log, "budget-status")).drain()
    log.append([status(log.log_id, 4)])  # nothing is left of the range
    Sink(store, SqliteSource(log, "budget-status")).drain()
    assert Queries(store).budget_status(budget="team")[0].spend_usd == Decimal("4E-12")


def test_what_nobody_of_us_wrote_is_set_aside_and_its_neighbours_go_in(
    store: Store, log: SqliteLog
) -> None:
    log.append(
        [
            alert(log.log_id, 1),
            NewRecord("alerts", b"team", b"nonsense"),
            alert(log.log_id, 2),
            NewRecord("budgets", b"position", b'{"v":1,"log":"x","next":1}', 0),
        ]
    )
    group(store, log).drain()
    assert {row.id for row in Queries(store).alerts()} == {f"{n:032x}" for n in (1, 2)}
    aside = store.query("SELECT topic, record, reason FROM sink_quarantine").rows
    assert [(topic, text) for topic, text, _ in aside] == [("alerts", "nonsense")]


def test_who_is_forgotten_is_in_no_signal(store: Store, log: SqliteLog) -> None:
    """Alerts stay without who it was and without their text; an entity's statuses go."""
    spoken = {"entity": "alice", "message": "alice has reached 80%"}
    log.append(
        [
            budget(),
            alert(log.log_id, 1, **spoken),
            alert(log.log_id, 2, "stuck", user="alice", message="a call of alice", call_id=CALL),
            alert(log.log_id, 3, entity="bob", message="bob has reached 80%"),
            status(log.log_id, 1, "alice"),
            status(log.log_id, 2, "bob"),
        ]
    )
    group(store, log).drain()
    found = forget(store, "alice")
    assert {table: found.rows[table] for table in ("alerts", "budget_status", "budget_now")} == {
        "alerts": 2, "budget_status": 1, "budget_now": 1,
    }  # fmt: skip
    for table in ("alerts", "budget_status", "budget_now", "audit"):
        rows = store.query_bytes(f"SELECT * FROM {table}", "JSONEachRow").decode()
        assert "alice" not in rows
        assert rows.count("bob") == {"alerts": 2, "audit": 0}.get(table, 1)
    assert count(store, "alerts") == 3
    (entry,) = AuditReader(store).query(action="forget user")
    assert entry.detail["rows"]["alerts"] == 2


def test_a_log_made_anew_begins_a_new_history(store: Store, tmp_path: Path) -> None:
    for name, spend in (("one", 7), ("two", 5)):
        with sqlite_log(tmp_path / f"{name}.db") as log:
            log.append([status(log.log_id, spend), alert(log.log_id, spend)])
            group(store, log).drain()
    assert count(store, "alerts") == 2
    assert [row.spend_usd for row in Queries(store).budget_status()] == [Decimal("5E-12")]


def test_gaps_that_were_told_of_and_closed(
    store: Store, log: SqliteLog, capsys: pytest.CaptureFixture[str]
) -> None:
    store.command(
        "INSERT INTO envelopes (log_id, source, seq, n, accepted, project, verdict, log_ts) "
        "SELECT {log:UUID}, {source:UUID}, number, 1, number + 1, 'shop', 'accepted', now() "
        "FROM numbers(10) WHERE number NOT IN (3, 4, 7)",
        {"log": log.log_id, "source": SOURCE},
    )
    try:
        said = {"source": SOURCE, "value": "1"}
        log.append(
            [
                alert(log.log_id, 1, "gap", first_seq=2, last_seq=4, **said),  # 2 has come since
                alert(log.log_id, 2, "gap", first_seq=8, last_seq=8, **said),
                alert(log.log_id, 3, "gap_closed", first_seq=8, last_seq=8, **said,
                      corrects=f"{2:032x}"),
            ]
        )  # fmt: skip
        group(store, log).drain()
        ask = Queries(store)
        found = {(gap.first, gap.last): gap.recorded_at for gap in ask.gaps(project="shop")}
        assert set(found) == {(3, 4), (7, 7)}
        assert found[3, 4] is not None
        assert found[7, 7] is None
        closed = [gap for gap in ask.gaps(closed=True) if gap.closed_at]
        assert [(gap.first, gap.last) for gap in closed] == [(8, 8)]
        assert ask.alerts(kind="gap")[0].corrected_at is not None
        with ShimServer(store) as server:  # type: ignore[arg-type]
            assert run(["gaps", "--store", server.url, "--json"]) == 2
            told = json.loads(capsys.readouterr().out)
            assert [(gap["first"], gap["recorded_at"] is None) for gap in told["gaps"]] == [
                (3, False), (7, True),
            ]  # fmt: skip
            assert [gap["first"] for gap in told["closed"]] == [8]
        assert len(ask.alerts(project="shop")) == 3  # through the source
        assert ask.alerts(project="other") == []
    finally:
        store.command("TRUNCATE TABLE envelopes")


def test_the_commands_show_them(
    store: Store, log: SqliteLog, capsys: pytest.CaptureFixture[str]
) -> None:
    log.append(
        [
            alert(log.log_id, 1),
            alert(log.log_id, 2, "stuck", call_id=CALL, project="shop", trace_id="ab" * 16),
            live(log.log_id, "shop", gpt=2, mini=1),
        ]
    )
    group(store, log).drain()
    with ShimServer(store) as server:  # type: ignore[arg-type]
        at = ("--store", server.url)
        assert run(["tail", *at, "--once"]) == 0
        first, second = capsys.readouterr().out.splitlines()
        assert (first[13:], second[13:]) == ("alert threshold: threshold 1", "alert stuck: stuck 2")
        assert run(["tail", *at, "--once", "--json", "--project", "shop", "--limit", "5"]) == 0
        row = json.loads(capsys.readouterr().out)
        assert (row["kind"], row["status"], row["call_id"]) == ("alert", "stuck", CALL)
        assert run(["top", *at, "--json"]) == 0
        said = json.loads(capsys.readouterr().out)
        assert [(row["model"], row["in_flight"]) for row in said["rows"]] == [
            ("gpt", 2),
            ("mini", 1),
        ]
        assert said["totals"]["in_flight"] == 3
        assert run(["top", *at, "--json", "--by", "user"]) == 0
        assert json.loads(capsys.readouterr().out)["rows"] == []


def test_who_follows_sees_each_alert_once(store: Store, log: SqliteLog) -> None:
    log.append([alert(log.log_id, 1)])
    group(store, log).drain()
    arrivals = Arrivals(store)
    assert list(arrivals.new()) == []
    for number in (2, 3):
        log.append([alert(log.log_id, number, rule=f"r{number}")])
        group(store, log).drain()
        assert [each.detail for each in arrivals.new()] == [f"threshold {number}"]
    assert list(arrivals.new()) == []


def test_alerts_are_asked_by_time_kind_rule_and_project(store: Store, log: SqliteLog) -> None:
    log.append(
        [
            budget(),
            *(alert(log.log_id, n) for n in range(1, 6)),
            alert(log.log_id, 6, "threshold", rule="other"),
            alert(log.log_id, 7, "withdrawn", rule="team", corrects=f"{5:032x}"),
        ]
    )
    group(store, log).drain()
    ask = Queries(store)
    numbers = [int(row.id, 16) for row in ask.alerts(kind="threshold", rule="team")]
    assert numbers == [5, 4, 3, 2, 1]
    assert len(ask.alerts(limit=2)) == 2
    at = datetime.fromtimestamp(0, UTC) + timedelta(microseconds=AT_US)
    between = ask.alerts(since=at + timedelta(microseconds=2), until=at + timedelta(microseconds=4))
    assert [int(row.id, 16) for row in between] == [3, 2]
    assert {row.rule for row in ask.alerts(project="webshop")} == {"team"}  # its scope is web*
    assert ask.alerts(project="elsewhere") == []
