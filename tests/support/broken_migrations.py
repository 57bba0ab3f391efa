"""A migration that breaks off behind its first statement, begun anew behind its second, and on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from callmeter_sinks.clickhouse.chdb_store import ChdbStore
from callmeter_sinks.clickhouse.migrate import migrate
from callmeter_sinks.clickhouse.sql_files import Deployment, shipped
from callmeter_sinks.clickhouse.store import PermanentStoreError


def broken_off(store: ChdbStore, version: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Has ``migrate`` to that version fail behind each of its statements; tells which it was."""
    real = ChdbStore.command
    statements = shipped()[version - 1].statements(Deployment())
    for broken_at in range(1, len(statements) + 1):
        ran = 0

        def breaks(self: ChdbStore, sql: str, *rest: object, at: int = broken_at) -> None:
            nonlocal ran
            ran += sql in statements
            real(self, sql, *rest)  # type: ignore[arg-type]
            if sql in statements and ran == at:
                raise PermanentStoreError(1, "in the middle")

        with monkeypatch.context() as patched:
            patched.setattr(ChdbStore, "command", breaks)
            where = f"statement {broken_at} of {len(statements)}"
            with pytest.raises(PermanentStoreError, match=where):
                migrate(store, files=shipped()[:version])
        yield broken_at
