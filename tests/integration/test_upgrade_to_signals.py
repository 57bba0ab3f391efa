"""A store of schema 3 with rows, brought to today's: nothing moves, the audit log comes along."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from callmeter.errors import ConfigError
from callmeter_sinks.audit import AuditReader
from callmeter_sinks.clickhouse.chdb_store import ChdbStore
from callmeter_sinks.clickhouse.migrate import check_schema, migrate
from callmeter_sinks.clickhouse.sql_files import shipped
from callmeter_sinks.clickhouse.store import Store
from callmeter_sinks.verify import verify
from support.broken_migrations import broken_off
from support.ledger import Book, us
from support.stores import land

OLD = shipped()[:3]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ChdbStore]:
    """Schema 3, with calls, an entry of the audit log and a note that is none."""
    store = ChdbStore(tmp_path / "db")
    migrate(store, files=OLD)
    yield store
    store.close()


def entry(action: str) -> dict[str, object]:
    return {
        "kind": "annotation", "ts_us": us("2026-03-02T10:00"), "text": action,
        "metadata": {"audit": {"user": "ann", "model": "gpt-4o", "detail": {"n": 1}}},
    }  # fmt: skip


def write(store: Store, book: Book, action: str) -> None:
    note = {"kind": "annotation", "ts_us": us("2026-03-02T10:00"), "text": "no entry",
            "metadata": {"user": "ann"}}  # fmt: skip
    book.envelope(book.call(), entry(action), note)
    book.checkpoint()
    land(store, book.take(), at=book.origin * 10)


def actions(store: Store) -> list[str]:
    return sorted(row.action for row in AuditReader(store).query())


def test_rows_stay_and_verify_holds_before_and_after(store: ChdbStore) -> None:
    book = Book()
    write(store, book, "first")
    with pytest.raises(ConfigError, match="0004_signals is pending: run `callmeter migrate`"):
        check_schema(store)
    before = store.query("SELECT * FROM calls").rows
    assert list(migrate(store).applied) == [file.version for file in shipped()[3:]]
    check_schema(store)
    assert store.query("SELECT * FROM calls").rows == before
    assert actions(store) == ["first"]
    write(store, book, "second")
    assert actions(store) == ["first", "second"]
    assert verify(store).equal
    assert store.query("SELECT count() FROM calls").rows == [(2,)]


def test_a_migration_that_breaks_off_may_be_run_again(
    store: ChdbStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At every statement; entries that were brought along are not brought twice."""
    book = Book()
    write(store, book, "first")
    for broken_at in broken_off(store, 4, monkeypatch):
        if broken_at % 5 == 0:  # sinks that were not stopped go on meanwhile
            write(store, book, f"meanwhile {broken_at}")
    assert not migrate(store).pending
    expected = ["first", *(f"meanwhile {n}" for n in range(5, broken_at + 1, 5))]
    assert actions(store) == sorted(expected)
    assert verify(store).equal
