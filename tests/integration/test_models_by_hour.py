"""Histograms by hour and model: quantiles as from those that keep more apart, each value once."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from callmeter_sinks.checks import outcome
from callmeter_sinks.clickhouse.chdb_store import ChdbStore
from callmeter_sinks.clickhouse.migrate import migrate
from callmeter_sinks.clickhouse.sql_files import shipped
from callmeter_sinks.clickhouse.store import Store
from callmeter_sinks.queries import Queries
from callmeter_sinks.verify import verify
from support.broken_migrations import broken_off
from support.ledger import Book
from support.stores import land

THROUGH = 6
OLD, NEW = "2026-03-01T12:00", "2026-03-05T09:30"
CHECK = "latency histogram (hours by model)"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ChdbStore]:
    """Nothing in it yet; differences are looked at again without waiting."""
    monkeypatch.setattr(outcome, "PAUSE_S", 0.0)
    opened = ChdbStore(tmp_path / "db")
    yield opened
    opened.close()


def write(store: Store, book: Book, started: str) -> None:
    """Two models, each with a call of its own duration."""
    place = book.origin
    book.envelope(
        book.call(started, latency_us=1000 + 300 * place, ttft_us=100 + place),
        book.call(started, latency_us=9000 + 700 * place, model="o3", status="error"),
    )
    book.checkpoint()
    land(store, book.take(), at=book.origin * 10)


def same_by_both(store: Store) -> None:
    """One project is all there is, so a filter by it asks the same of other tables."""
    ask = Queries(store)
    for by in (["hour", "model"], ["model"], ["hour"]):
        for since in (None, datetime(2026, 3, 1, 11, 30, tzinfo=UTC)):
            until = datetime(2026, 3, 5, 10, tzinfo=UTC)
            coarse = ask.report(by, since=since, until=until)
            assert coarse == ask.report(by, since=since, until=until, project="shop")
            assert coarse.totals.latency_p50_ms is not None


def counted(store: Store, since: datetime) -> int:
    """Durations in the new table from a moment on."""
    return int(
        store.query(
            "SELECT sum(arraySum(mapValues(latency))) FROM hist_models_1h "
            "WHERE start >= toDateTime({since:Int64}, 'UTC')",
            {"since": int(since.timestamp())},
        ).rows[0][0]
    )


def test_an_older_store_keeps_its_hours_and_has_new_ones(
    store: ChdbStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Broken off behind each statement, while rows come in, also late ones."""
    migrate(store, files=shipped()[: THROUGH - 1])
    book = Book()
    write(store, book, OLD)
    for _ in broken_off(store, THROUGH, monkeypatch):
        write(store, book, OLD)
    assert not migrate(store).pending
    begin = datetime(2026, 3, 3, tzinfo=UTC)
    assert store.query("SELECT * FROM rollup_begins").rows == [("hist_models_1h", begin)]
    for started in (NEW, OLD, NEW):
        write(store, book, started)
    assert counted(store, begin) == 4
    same_by_both(store)
    checks = {check.what: check for check in verify(store).checks}
    assert (checks[CHECK].equal, checks[CHECK].raw) == (True, 4)
    assert all(check.equal for check in checks.values())


def test_a_new_store_has_all_hours_and_verify_sees_damage(store: ChdbStore) -> None:
    migrate(store)
    book = Book()
    for started in (OLD, NEW, OLD):
        write(store, book, started)
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    assert store.query("SELECT start FROM rollup_begins").rows == [(epoch,)]
    assert counted(store, epoch + timedelta(days=1)) == 6
    same_by_both(store)
    assert {c.what for c in verify(store).checks if not c.equal} == set()
    store.command(
        "INSERT INTO hist_models_1h SELECT * FROM hist_models_1h WHERE model = 'o3'",
        settings={"insert_deduplicate": "0"},
    )
    assert {c.what for c in verify(store).checks if not c.equal} == {CHECK}


def test_which_questions_it_answers(store: ChdbStore) -> None:
    migrate(store)

    class Watched:
        asked = ""
        embedded = True

        def query(self, sql: str, params: object = None, settings: object = None) -> object:
            self.asked = sql
            return store.query(sql, params, settings)  # type: ignore[arg-type]

    watched = Watched()
    ask = Queries(watched)  # type: ignore[arg-type]
    for by, filters, reads in (
        (["hour", "model"], {}, True),
        (["hour", "provider", "operation"], {"model": "o3"}, True),
        (["hour", "project"], {}, False),
        (["hour"], {"status": "ok"}, False),
        (["minute", "model"], {}, False),
        (["day", "model"], {}, False),
    ):
        ask.report(by, filters=filters)
        assert ("hist_models_1h" in watched.asked) is reads, by
