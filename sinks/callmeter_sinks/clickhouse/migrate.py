"""Runs the numbered SQL files, once each, and says where a store stands.

``schema_migrations`` is append-only: a row ``started`` before a file's first statement, then
``done`` or ``failed``. The newest row of a version counts. A file that did not reach its end is run
again from its first statement; that is safe because every statement may run twice
(``SqlFile.statements`` refuses others), so the way on after a failure is to mend its cause and run
``callmeter migrate`` again.
Why not clickhouse-migrations: docs/decisions/0010.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from callmeter._version import __version__
from callmeter.errors import ConfigError, NewerSchemaError
from callmeter_sinks.clickhouse import shard_book
from callmeter_sinks.clickhouse.retention import begin_retention
from callmeter_sinks.clickhouse.sql_files import Deployment, SqlFile, render, shipped
from callmeter_sinks.clickhouse.store import PermanentStoreError, Store

_STATE_TABLE = """CREATE TABLE IF NOT EXISTS schema_migrations ${CL} (
  version UInt32,
  name String,
  checksum String,
  state LowCardinality(String),
  detail String,
  program String,
  at DateTime64(6, 'UTC') DEFAULT now64(6, 'UTC')
) ENGINE = ${R}MergeTree ORDER BY (version, at)"""

_CONSISTENT = {"select_sequential_consistency": "1"}


class State(StrEnum):
    """Of one migration on one store."""

    PENDING = "pending"
    STARTED = "started"  # begun, end unknown: the process died
    FAILED = "failed"
    DONE = "done"


@dataclass(frozen=True, slots=True)
class Step:
    """One migration and where it stands; ``detail`` says which statement failed and why."""

    version: int
    name: str
    state: State
    detail: str = ""


@dataclass(frozen=True, slots=True)
class MigrationReport:
    """What ``migrate`` did: every step as it stands now, and the versions applied in this run.

    ``retention`` names the new tables that got a default.
    """

    steps: Sequence[Step]
    applied: Sequence[int] = field(default=())
    retention: Sequence[str] = field(default=())

    @property
    def pending(self) -> list[Step]:
        return [step for step in self.steps if step.state is not State.DONE]


def migrate(
    store: Store,
    *,
    dry_run: bool = False,
    plain_server: bool = False,
    files: Iterable[SqlFile] | None = None,
    dedup_window: int | None = None,
) -> MigrationReport:
    """Bring the store to this version's schema; with ``dry_run`` only say what would be done.

    A server without Replicated tables is refused (its deduplication can lose rows after a kill,
    docs/decisions/0006) unless ``plain_server`` says it is the shim of a test. ``NewerSchemaError``
    if the store has migrations this program does not know, ``ConfigError`` if one that was done has
    another text now, ``PermanentStoreError`` if the engine refuses a statement: the store is then
    marked failed at that statement and a later run goes on.
    """
    if not (store.embedded or store.replicated or plain_server):
        raise ConfigError(
            f"{store.name}: plain MergeTree on a server can lose rows after a kill and is refused: "
            "give a server with Keeper (tables are then Replicated)"
        )
    ours = tuple(shipped() if files is None else files)
    deployment = Deployment(store.replicated, store.cluster, dedup_window)
    steps = _compared(ours, _recorded(store))
    if dry_run:
        return MigrationReport(steps)
    rendered = {file.version: file.statements(deployment) for file in ours}
    store.command(render(_STATE_TABLE, deployment))
    applied = []
    begun: list[str] = []
    for file, step in zip(ours, steps, strict=True):
        if step.state is not State.DONE:
            begun += _run(store, file, rendered[file.version])
            applied.append(file.version)
    return MigrationReport(_compared(ours, _recorded(store)), applied, begun)


def check_schema(store: Store) -> None:
    """That the store has exactly this program's schema: for whoever reads or writes it.

    ``NewerSchemaError`` for a newer one; ``ConfigError`` naming ``callmeter migrate`` for none, an
    older or a half-done one.
    """
    unfinished = [s for s in _compared(shipped(), _recorded(store)) if s.state is not State.DONE]
    if unfinished:
        first = unfinished[0]
        raise ConfigError(
            f"{store.name}: migration {first.version:04d}_{first.name} is {first.state}: "
            "run `callmeter migrate`"
        )


def _run(store: Store, file: SqlFile, statements: Sequence[str]) -> list[str]:
    """Run one file. Retention of its tables begins before it is done, so a repeat sets it too."""
    _record(store, file, State.STARTED, "")
    for number, statement in enumerate(statements, 1):
        try:
            store.command(statement)
        except PermanentStoreError as exc:
            where = f"statement {number} of {len(statements)}"
            _record(store, file, State.FAILED, f"{where}: {exc.message}")
            raise PermanentStoreError(
                exc.code,
                f"migration {file.version:04d}_{file.name}, {where}: {exc.message} "
                "(mend the cause and run `callmeter migrate` again: it goes on from here)",
            ) from exc
    begun = begin_retention(store, file.tables)
    _record(store, file, State.DONE, "")
    return begun


def _record(store: Store, file: SqlFile, state: State, detail: str) -> None:
    # As INSERT … SELECT: the values are bound, and the engine's clock orders the rows.
    store.command(
        "INSERT INTO schema_migrations (version, name, checksum, state, detail, program) "
        "SELECT {version:UInt32}, {name:String}, {checksum:String}, {state:String}, "
        "{detail:String}, {program:String}",
        {
            "version": file.version,
            "name": file.name,
            "checksum": file.checksum,
            "state": str(state),
            "detail": detail,
            "program": f"callmeter {__version__}",
        },
    )


@dataclass(frozen=True, slots=True)
class _Recorded:
    name: str
    checksum: str
    state: State
    detail: str
    program: str


def _recorded(store: Store) -> dict[int, _Recorded]:
    """The newest row of each version; empty for a store that was never migrated.

    Of a read side the row of the shard that is furthest behind. ``ConfigError`` if the store is not
    the shard that its URL says (``shard_book``).
    """
    there = {
        name
        for (name,) in store.query(
            "SELECT name FROM system.tables WHERE database = currentDatabase() "
            "AND name IN ('schema_migrations', 'shards')"
        ).rows
    }
    rows = _newest(store) if "schema_migrations" in there else []
    shard_book.check_sharding(store, noted=shard_book.TABLE in there, filled=bool(rows))
    found: dict[int, list[_Recorded]] = {}
    for version, newest in rows:
        row = _Recorded(newest[0], newest[1], State(newest[2]), newest[3], newest[4])
        found.setdefault(version, []).append(row)
    sharding = store.sharding
    everywhere = sharding.shards if sharding is not None and sharding.reading else 1
    return {
        version: min(each, key=lambda row: row.state is State.DONE)
        for version, each in found.items()
        if len(each) == everywhere
    }


def _newest(store: Store) -> list[tuple[Any, ...]]:
    """The newest row of each version, on each shard of a read side."""
    shard = "_shard_num, " if store.sharding is not None and store.sharding.reading else ""
    return store.query(
        "SELECT version, argMax((name, checksum, state, detail, program), at) AS newest "  # noqa: S608
        f"FROM schema_migrations GROUP BY {shard}version ORDER BY version",
        settings=_CONSISTENT if store.replicated else None,
    ).rows


def _compared(ours: Sequence[SqlFile], recorded: dict[int, _Recorded]) -> list[Step]:
    newest = max(recorded, default=0)
    if newest > len(ours):
        raise NewerSchemaError(
            f"the store has schema {newest} (from {recorded[newest].program}), this is callmeter "
            f"{__version__} with schema {len(ours)}: upgrade callmeter"
        )
    steps = []
    for file in ours:
        row = recorded.get(file.version)
        if row is None:
            steps.append(Step(file.version, file.name, State.PENDING))
            continue
        if row.state is State.DONE and row.checksum != file.checksum:
            raise ConfigError(
                f"migration {file.version:04d}_{file.name} has another text than the one that was "
                f"run by {row.program}: this store was made by another build of callmeter"
            )
        steps.append(Step(file.version, file.name, row.state, row.detail))
    return steps
