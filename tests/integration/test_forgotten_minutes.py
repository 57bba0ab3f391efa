"""Reports of periods whose minutes are gone: retention takes them, hours and days stay."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from callmeter_sinks.clickhouse.retention import apply_retention
from callmeter_sinks.queries import Queries
from callmeter_sinks.queries.sources import Question
from support.metered import MeteredStream
from support.stores import land, migrated_chdb


def test_hours_are_whole_where_minutes_are_gone(tmp_path: Path) -> None:
    """A few hours are read from minutes only where these are kept (docs/decisions/0022)."""
    stream = MeteredStream("019a0000-0000-7000-8000-00000000000f", 7, seed=3)
    with migrated_chdb(tmp_path / "db") as store:
        land(store, list(stream.records(30)), partition=7, token="stream")
        ask = Queries(store)
        hour = next(row.key["hour"] for row in ask.report(["hour"]).rows[9:] if row.figures.calls)
        until = hour + timedelta(hours=2, minutes=5)
        since = hour.replace(hour=0) - timedelta(days=3)
        read = {part.suffix for part in Question.of(store, since=since, until=until).parts()}
        assert read == {"1m", "1d"}
        whole = ask.report(["model"], since=since, until=until)
        apply_retention(store, {"hist_1m": 30})
        for table in ("rollup_1m", "hist_1m"):
            store.command(f"DELETE FROM {table} WHERE start < toStartOfHour(now()) - 86400 * 30")
        assert ask.report(["model"], since=since, until=until) == whole
