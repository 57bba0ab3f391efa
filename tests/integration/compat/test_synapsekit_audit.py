"""The audit log on the real pipeline: asked, only added to, and there after a restart."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import callmeter
from callmeter.compat.synapsekit import AuditLog
from callmeter.embedded import running
from callmeter.errors import UsageError
from callmeter_sinks.audit import AuditReader
from callmeter_sinks.clickhouse.opening import open_store
from callmeter_sinks.clickhouse.store import PermanentStoreError
from support.cli import started
from support.synapsekit_stored import Stored, stored

__all__ = ["stored"]  # a fixture


@pytest.mark.acceptance(229)
def test_the_audit_log_is_asked_by_user_model_and_time(stored: Stored) -> None:
    writer, reader = AuditLog(), AuditLog(AuditReader(stored.pipeline.store, stored.project))
    for number in range(6):
        user = "alice" if number % 2 else "bob"
        model = "gpt-4o" if number < 3 else "gpt-4o-mini"
        writer.record("llm.generate", user=user, model=model, number=number)
    callmeter.annotation("no entry of the audit log", metadata={"user": "alice"})
    assert callmeter.flush(20.0).ok
    stored.pipeline.wait(lambda: len(reader.query()) == 6)
    numbers = [entry.detail["number"] for entry in reader.query()]
    assert numbers == [5, 4, 3, 2, 1, 0]
    assert [e.detail["number"] for e in reader.query(user="alice")] == [5, 3, 1]
    assert [e.detail["number"] for e in reader.query(model="gpt-4o")] == [2, 1, 0]
    assert [e.detail["number"] for e in reader.query(user="alice", model="gpt-4o")] == [1]
    assert [e.detail["number"] for e in reader.query(limit=2)] == [5, 4]
    entries = reader.query()
    middle = entries[2].at
    assert [e.detail["number"] for e in reader.query(since=middle)] == [5, 4, 3]
    assert [e.detail["number"] for e in reader.query(until=middle)] == [2, 1, 0]
    assert reader.query(since=datetime.now(UTC) + timedelta(hours=1)) == []
    assert reader.query(user="alice' OR 1=1 --") == []
    assert (entries[0].action, entries[0].user, entries[0].model) == (
        "llm.generate",
        "alice",
        "gpt-4o-mini",
    )
    with pytest.raises(UsageError, match="needs the store"):
        writer.query()


@pytest.mark.acceptance(229)
def test_the_audit_log_is_only_added_to(stored: Stored) -> None:
    reader = AuditReader(stored.pipeline.store, stored.project)
    AuditLog().record("first", user="alice")
    assert callmeter.flush(20.0).ok
    stored.pipeline.wait(lambda: len(reader.query()) == 1)
    offered = {name for kind in (AuditLog, AuditReader) for name in vars(kind) if name[0] != "_"}
    assert offered == {"record", "query"}
    for statement in (
        "ALTER TABLE annotations DELETE WHERE 1",
        "ALTER TABLE annotations UPDATE text = '' WHERE 1",
        "DELETE FROM annotations WHERE 1",
        "TRUNCATE TABLE annotations",
        "DROP TABLE annotations",
    ):
        with pytest.raises(PermanentStoreError):
            stored.pipeline.store.command(statement)
    assert [entry.action for entry in reader.query()] == ["first"]


@contextlib.contextmanager
def up(directory: Path) -> Iterator[tuple[str, AuditReader]]:
    """A pipeline of this test's own: its collector and a reader of its audit log."""
    with started("up", "--dir", directory, "--port", 0) as process:
        assert process.stdout is not None
        process.stdout.readline()
        owner = running(directory)
        assert owner is not None
        store = open_store(owner.store_url)
        try:
            yield owner.url, AuditReader(store)
        finally:
            store.close()
        process.terminate()
        _, err = process.communicate(timeout=60)
        assert process.returncode == 0, err


@pytest.mark.acceptance(229)
def test_the_audit_log_survives_a_restart(tmp_path: Path) -> None:
    with up(tmp_path) as (url, _):
        callmeter.init(url, project="audited")
        AuditLog().record("approved", user="alice", model="gpt-4o")
        assert callmeter.flush(20.0).ok
        callmeter.close()
    with up(tmp_path) as (_, reader):
        (entry,) = reader.query(user="alice")
        assert (entry.action, entry.model, entry.project) == ("approved", "gpt-4o", "audited")
