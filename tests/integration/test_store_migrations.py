"""Migrations on a real engine: once, again, half-way, newer, older; on a cluster as text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from callmeter.errors import ConfigError, NewerSchemaError
from callmeter_sinks.clickhouse import shard_book
from callmeter_sinks.clickhouse.chdb_store import ChdbStore
from callmeter_sinks.clickhouse.migrate import State, check_schema, migrate
from callmeter_sinks.clickhouse.opening import open_store
from callmeter_sinks.clickhouse.read_side import read_statements, read_tables
from callmeter_sinks.clickhouse.shim import ShimServer
from callmeter_sinks.clickhouse.sql_files import Deployment, SqlFile, shipped
from callmeter_sinks.clickhouse.store import PermanentStoreError

GOOD = SqlFile(
    1, "one", "CREATE TABLE IF NOT EXISTS m1 ${CL} (k Int8) ENGINE = ${R}MergeTree ORDER BY k;"
)
BROKEN = SqlFile(
    2, "two",
    "CREATE TABLE IF NOT EXISTS m2 ${CL} (k Int8) ENGINE = ${R}MergeTree ORDER BY k;\n"
    "CREATE VIEW IF NOT EXISTS m3 AS SELECT * FROM not_yet;\n"
    "CREATE TABLE IF NOT EXISTS m4 ${CL} (k Int8) ENGINE = ${R}MergeTree ORDER BY k;",
)  # fmt: skip


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChdbStore]:
    store = ChdbStore(tmp_path_factory.mktemp("migrations") / "db")
    yield store
    store.close()


@pytest.fixture
def store(engine: ChdbStore) -> Iterator[ChdbStore]:
    """The engine, empty."""
    yield engine
    names = engine.query(
        "SELECT name FROM system.tables WHERE database = currentDatabase() "
        "ORDER BY endsWith(engine, 'View') DESC"
    ).rows
    for (name,) in names:
        engine.command(f"DROP TABLE IF EXISTS `{name}` SYNC")


def tables(store: ChdbStore) -> set[str]:
    rows = store.query("SELECT name FROM system.tables WHERE database = currentDatabase()").rows
    return {name for (name,) in rows}


def test_all_once_and_nothing_the_second_time(store: ChdbStore) -> None:
    with pytest.raises(ConfigError, match="run `callmeter migrate`"):
        check_schema(store)
    first = migrate(store)
    assert list(first.applied) == [file.version for file in shipped()]
    assert not first.pending
    check_schema(store)
    assert list(migrate(store).applied) == []
    assert {"calls", "rollup_1m", "landing", "schema_migrations"} <= tables(store)


def test_a_dry_run_says_what_would_be_done_and_does_nothing(store: ChdbStore) -> None:
    report = migrate(store, dry_run=True, files=[GOOD])
    assert [(s.version, s.name, s.state) for s in report.steps] == [(1, "one", State.PENDING)]
    assert tables(store) == set()


def test_a_failure_half_way_says_where_and_the_next_run_goes_on(store: ChdbStore) -> None:
    with pytest.raises(PermanentStoreError, match=r"0002_two, statement 2 of 3.*not_yet") as caught:
        migrate(store, files=[GOOD, BROKEN])
    assert "callmeter migrate" in str(caught.value)
    report = migrate(store, dry_run=True, files=[GOOD, BROKEN])
    assert [step.state for step in report.steps] == [State.DONE, State.FAILED]
    assert "statement 2 of 3" in report.steps[1].detail
    assert "m4" not in tables(store)
    # The way on: the cause is mended (here a table that lacked), the same command again.
    store.command("CREATE TABLE not_yet (k Int8) ENGINE = MergeTree ORDER BY k")
    again = migrate(store, files=[GOOD, BROKEN])
    assert list(again.applied) == [2]
    assert not again.pending
    assert {"m2", "m3", "m4"} <= tables(store)


def test_a_mended_text_may_replace_one_that_failed(store: ChdbStore) -> None:
    with pytest.raises(PermanentStoreError):
        migrate(store, files=[GOOD, BROKEN])
    mended = replace(BROKEN, sql=BROKEN.sql.replace("not_yet", "m1"))
    assert not migrate(store, files=[GOOD, mended]).pending


def test_a_process_that_died_in_a_migration_left_it_started(store: ChdbStore) -> None:
    migrate(store, files=[GOOD])
    store.command(
        "INSERT INTO schema_migrations (version, name, checksum, state) "
        "SELECT 1, 'one', 'x', 'started'"
    )
    assert migrate(store, dry_run=True, files=[GOOD]).steps[0].state is State.STARTED
    assert list(migrate(store, files=[GOOD]).applied) == [1]


def test_a_text_that_changed_after_it_was_run_is_refused(store: ChdbStore) -> None:
    migrate(store, files=[GOOD])
    with pytest.raises(ConfigError, match="0001_one has another text"):
        migrate(store, files=[replace(GOOD, sql=f"-- changed\n{GOOD.sql}")])


def test_an_older_program_refuses_a_newer_schema(store: ChdbStore) -> None:
    migrate(store)
    store.command(
        "INSERT INTO schema_migrations (version, name, checksum, state, program) "
        "SELECT 99, 'later', 'x', 'done', 'callmeter 9.9'"
    )
    with pytest.raises(NewerSchemaError, match=r"schema 99 .from callmeter 9.9.*upgrade"):
        check_schema(store)
    with pytest.raises(NewerSchemaError):
        migrate(store)


def test_an_older_store_is_brought_forward_with_its_rows(store: ChdbStore) -> None:
    migrate(store, files=[GOOD])
    store.command("INSERT INTO m1 SELECT 1")
    later = SqlFile(2, "two", "ALTER TABLE m1 ADD COLUMN IF NOT EXISTS s String DEFAULT 'x';")
    assert list(migrate(store, files=[GOOD, later]).applied) == [2]
    assert store.query("SELECT k, s FROM m1").rows == [(1, "x")]


def test_plain_tables_on_a_server_are_refused(store: ChdbStore) -> None:
    with ShimServer(store, writable=True) as shim:
        remote = open_store(shim.url, {})
        try:
            with pytest.raises(ConfigError, match="plain MergeTree on a server"):
                migrate(remote)
            assert not migrate(remote, plain_server=True).pending
            check_schema(remote)
        finally:
            remote.close()


@pytest.mark.parametrize(
    "deployment",
    [Deployment(), Deployment(True), Deployment(True, "main"), Deployment(False, "main")],
    ids=["plain", "replicated", "cluster", "plain cluster"],
)
def test_every_rendering_is_what_the_engine_reads(
    engine: ChdbStore, deployment: Deployment, tmp_path: Path
) -> None:
    for file in shipped():
        for statement in file.statements(deployment):
            said = engine.query("SELECT formatQuery({q:String})", {"q": statement}).rows[0][0]
            if not said.startswith("INSERT"):  # of rows, which replicate
                assert ("ON CLUSTER main" in said) is (deployment.cluster is not None)
            has_engine = "MergeTree" in said
            assert ("ENGINE = Replicated" in said) is (deployment.replicated and has_engine)
            known = {name for (name,) in engine.query(
                "SELECT name FROM system.merge_tree_settings"
            ).rows}  # fmt: skip
            for setting in said.partition("\nSETTINGS ")[2].split(", "):
                assert not setting or setting.split(" = ")[0] in known


def test_what_reads_several_shards_is_what_the_engine_reads(engine: ChdbStore) -> None:
    tables = read_tables(shipped())
    database, *made = read_statements(tables, database="meter", cluster="main")
    said = engine.query("SELECT formatQuery({q:String})", {"q": database}).rows[0][0]
    assert said == "CREATE DATABASE IF NOT EXISTS meter_all ON CLUSTER main"
    assert len(made) == len(tables) == len(set(tables)) > 25
    for table, statement in zip(tables, made, strict=True):
        said = engine.query("SELECT formatQuery({q:String})", {"q": statement}).rows[0][0]
        assert (
            said.split()
            == (
                f"CREATE OR REPLACE TABLE meter_all.{table} ON CLUSTER main AS meter.{table} "
                f"ENGINE = Distributed(main, meter, {table})"
            ).split()
        )
    note = shard_book.statement(Deployment(True, "main"))
    said = engine.query("SELECT formatQuery({q:String})", {"q": note}).rows[0][0]
    assert "ON CLUSTER main" in said
    assert "ENGINE = ReplicatedMergeTree" in said
