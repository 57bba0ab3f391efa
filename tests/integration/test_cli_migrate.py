"""``callmeter migrate`` sets a server's retention, and an embedded store keeps everything."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from callmeter.cli.app import run
from callmeter_sinks.clickhouse import migrate as migrations
from callmeter_sinks.clickhouse.chdb_store import ChdbStore
from callmeter_sinks.clickhouse.shim import ShimServer
from support.cli import callmeter


def test_a_server_gets_the_retention_that_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # The shim is a plain server, which nothing but a test may migrate.
    monkeypatch.setattr(migrations, "migrate", partial(migrations.migrate, plain_server=True))
    engine = ChdbStore(tmp_path / "db")
    try:
        with ShimServer(engine, writable=True) as server:
            ask = ("migrate", "--store", server.url)
            assert run([*ask, "--dry-run"]) == 0
            assert "retention" not in capsys.readouterr().out
            assert run([*ask, "--retention-days", "calls=365,costs=forever"]) == 0
            out = capsys.readouterr().out
            assert "retention set: calls, calls_open, costs, dead_letters" in out
            assert days(engine, "calls") == "toIntervalDay(365)"
            assert days(engine, "costs") == ""
            assert days(engine, "dead_letters") == "toIntervalDay(30)"
            assert days(engine, "calls_open") == "toIntervalDay(2)"
            # What was changed stays changed, also where it was changed by hand.
            engine.command("ALTER TABLE metrics MODIFY TTL toDateTime(log_ts) + toIntervalDay(7)")
            engine.command("ALTER TABLE dead_letters REMOVE TTL")
            assert run([*ask]) == 0
            assert "retention" not in capsys.readouterr().out
            assert days(engine, "calls") == "toIntervalDay(365)"
            assert (days(engine, "metrics"), days(engine, "costs")) == ("toIntervalDay(7)", "")
            assert days(engine, "dead_letters") == ""
            assert run([*ask, "--retention-days", "calls=90"]) == 0
            assert "retention set: calls\n" in capsys.readouterr().out
            assert days(engine, "calls") == "toIntervalDay(90)"
            fresh = server.url.replace("/default", "/fresh")
            assert run(["migrate", "--store", fresh, "--dry-run"]) != 0  # makes nothing
            assert run(["migrate", "--store", fresh, "-q"]) == 0
            made = engine.query("SELECT count() FROM system.tables WHERE database = 'fresh'")
            assert made.rows[0][0] > 30
            capsys.readouterr()
            assert run([*ask, "--retention-days", "nonsense=3"]) == 78
            assert "nonsense has no retention" in capsys.readouterr().err
    finally:
        engine.close()


def test_wrong_usage_is_one_line(tmp_path: Path) -> None:
    embedded = callmeter(
        "migrate", "--store", f"chdb:{tmp_path / 'db'}", "--retention-days", "calls=3"
    )
    assert (embedded.code, "for servers" in embedded.err) == (64, True)
    wrong = callmeter("migrate", "--store", "chdb:x", "--retention-days", "calls=soon")
    assert (wrong.code, "TABLE=DAYS" in wrong.err) == (64, True)


def test_examples_in_help_keep_their_lines() -> None:
    shown = callmeter("top", "--help").out
    assert "  Example: callmeter top --by model,user --every 2s\n" in shown
    assert "\\b" not in shown + callmeter("prices", "unpriced", "--help").out


def days(store: ChdbStore, table: str) -> str:
    rows = store.query(
        "SELECT extract(create_table_query, 'TTL .*(toIntervalDay\\\\([0-9]+\\\\))') "
        "FROM system.tables WHERE database = currentDatabase() AND name = {name:String}",
        {"name": table},
    ).rows
    return str(rows[0][0])
