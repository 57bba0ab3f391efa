"""A store of schema 4 gets projections of all its rows, wherever its migration breaks off."""

from __future__ import annotations

from pathlib import Path

import pytest

from callmeter_sinks.clickhouse.chdb_store import ChdbStore
from callmeter_sinks.clickhouse.migrate import check_schema, migrate
from callmeter_sinks.clickhouse.sql_files import shipped
from callmeter_sinks.queries import Queries
from callmeter_sinks.verify import verify
from support.broken_migrations import broken_off
from support.ledger import Book
from support.stores import land

THROUGH = 5


def test_parts_of_before_and_of_meanwhile_have_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ChdbStore(tmp_path / "db")
    try:
        migrate(store, files=shipped()[: THROUGH - 1])
        book = Book()

        def write() -> None:
            book.envelope(book.call(user="ann"), book.call(user="ben", status="error"))
            book.checkpoint()
            land(store, book.take(), at=book.origin * 10)

        write()
        for broken_at in broken_off(store, THROUGH, monkeypatch):
            if broken_at % 3 == 0:  # sinks that were not stopped go on meanwhile
                write()
        assert not migrate(store).pending
        check_schema(store)
        write()
        store.command("OPTIMIZE TABLE calls FINAL")
        parts = store.query(
            "SELECT name, sum(rows) FROM system.projection_parts WHERE active "
            "AND database = currentDatabase() AND table = 'calls' GROUP BY name"
        ).rows
        assert {name for name, _ in parts} == {"by_user", "by_failure"}
        written = broken_at // 3 + 2
        named = store.query(
            "SELECT user, countMerge(`count()`) FROM "
            "mergeTreeProjection(currentDatabase(), calls, by_user) GROUP BY user ORDER BY user"
        )
        assert named.rows == [("ann", written), ("ben", written)]
        rows = Queries(store).report(["user"], latencies=False).rows
        assert sorted((row.key["user"], row.figures.calls) for row in rows) == named.rows
        assert [row.calls for row in Queries(store).errors()] == [written]
        assert verify(store).equal
    finally:
        store.close()
