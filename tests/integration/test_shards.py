"""Two shards filled by real sinks and read through ``Distributed``: the same as one store."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from callmeter.cli.app import run
from callmeter.cli.repair import carry_out
from callmeter.errors import ConfigError, UnreachableError
from callmeter.log.sqlite_log import SqliteLog
from callmeter.schema.budgets import Budget
from callmeter_sinks.clickhouse import migrate_shards
from callmeter_sinks.clickhouse.migrate import check_schema
from callmeter_sinks.clickhouse.opening import open_shards, open_store
from callmeter_sinks.clickhouse.shard_book import check_opened
from callmeter_sinks.clickhouse.sharding import Sharding
from callmeter_sinks.clickhouse.shards import Shards
from callmeter_sinks.clickhouse.store import PermanentStoreError, Store
from callmeter_sinks.dashboard.app import dashboard_app
from callmeter_sinks.forget import find, forget
from callmeter_sinks.queries import Queries
from callmeter_sinks.queries.opening import Origins, is_stored, opening_spend
from callmeter_sinks.repair_plan import Wanted
from callmeter_sinks.sink import Sink
from callmeter_sinks.source import SqliteSource
from callmeter_sinks.streams import STREAMS
from callmeter_sinks.verify import verify
from callmeter_sinks.writer import PartitionWriter
from support.sharded_questions import IN_ORDER, OTHERS, QUESTIONS, unordered
from support.sharded_traffic import FORGOTTEN, ORIGINS, PARTITIONS, RELATED, fill
from support.stored import stored
from support.two_shards import CLUSTER, DATABASES, DatabaseStore, TwoShards, served, two_shards
from support.two_shards import SHARDED as DATABASE

DASHBOARDS = sorted((Path(__file__).parents[2] / "deploy/grafana/dashboards").glob("*.json"))


class KilledError(Exception):
    """What ends a sink in the middle of an insert."""


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SqliteLog]:
    log = SqliteLog(tmp_path_factory.mktemp("shards-log") / "log.db", partitions=PARTITIONS)
    fill(log)
    yield log
    log.close()


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory, log: SqliteLog) -> Iterator[TwoShards]:
    """Both shards and the whole store hold the same log; a sink of the shards was killed once."""
    with two_shards(tmp_path_factory.mktemp("shards") / "db") as two:
        shard = two.shards.stores[1]
        insert = shard.insert_block

        def insert_and_die(table: str, *args: Any, **more: Any) -> None:
            insert(table, *args, **more)
            if table == "landing":
                raise KilledError

        with pytest.MonkeyPatch.context() as dying:
            dying.setattr(shard, "insert_block", insert_and_die)
            dying.setattr(PartitionWriter, "rest", lambda *_: None)
            with pytest.raises(KilledError):
                Sink(two.shards, SqliteSource(log)).drain()
        rebuilt = 0
        for topic in STREAMS:
            rebuilt += Sink(two.shards, SqliteSource(log, topic)).drain().rebuilds
            Sink(two.whole, SqliteSource(log, topic)).drain()
        assert rebuilt, "the killed sink's range was not inserted again"
        yield two


def test_a_partition_lies_whole_on_its_shard(two: TwoShards) -> None:
    for index, store in enumerate(two.shards.stores):
        for table in ("envelopes", "calls", "costs", "metrics", "rollup_controls", "sink_intents",
                      "sink_claims", "alerts", "budget_status", "in_flight", "audit"):  # fmt: skip
            found = {p for (p,) in store.query(f"SELECT DISTINCT partition FROM {table}").rows}
            assert found
            assert {partition % len(two.shards) for partition in found} == {index}, table


def test_the_read_side_has_every_table_that_stores_rows(two: TwoShards) -> None:
    names = (
        "SELECT name FROM system.tables WHERE database = {db:String} AND engine LIKE {like:String}"
    )
    stored_in = two.engine.query(names, {"db": "shard0", "like": "%MergeTree"}).rows
    read_by = two.engine.query(names, {"db": "sharded_all", "like": "Distributed"}).rows
    assert sorted(stored_in) == sorted(read_by)


def test_the_shards_hold_what_one_store_holds(two: TwoShards) -> None:
    assert stored(two.reading) == stored(two.whole)
    ours, theirs = verify(two.reading), verify(two.whole)
    assert ours.equal
    assert ours.to_json() == theirs.to_json()
    assert len(ours.gaps) >= PARTITIONS


_BUDGET = Budget(id="team", version=1, window="day", scope={}, per="user", limit_pico=10**12)


def test_every_question_is_asked() -> None:
    methods = {name for name in vars(Queries) if not name.startswith("_")}
    assert methods - {name.partition(" ")[0] for name in QUESTIONS} == {
        "export_report", "export_calls"
    }  # fmt: skip


@pytest.mark.parametrize("name", QUESTIONS)
def test_a_question_to_all_shards_is_answered_as_by_one_store(two: TwoShards, name: str) -> None:
    ask = QUESTIONS[name]
    ours, theirs = ask(Queries(two.reading)), ask(Queries(two.whole))
    assert ours
    assert unordered(ours) == unordered(theirs)
    if name.partition(" ")[0] in IN_ORDER:
        assert ours == theirs


@pytest.mark.parametrize("name", OTHERS)
def test_others_read_all_shards_as_one_store(two: TwoShards, name: str) -> None:
    ours, theirs = OTHERS[name](two.reading), OTHERS[name](two.whole)
    assert ours
    assert unordered(ours) == unordered(theirs)


def test_grafanas_panels_read_all_shards_without_our_settings(two: TwoShards) -> None:
    """Its data source sends none, so no panel may need them."""
    plain = DatabaseStore(two.engine, two.reading.database)
    panels = [
        target["rawSql"]
        for file in DASHBOARDS
        for panel in json.loads(file.read_text())["panels"]
        for target in panel.get("targets", ())
        if "rawSql" in target
    ]
    assert panels
    for sql in panels:
        asked = re.sub(r"\$__timeFilter\((\w+)\)", r"(\1 >= toDateTime('2025-01-01'))", sql)
        asked = re.sub(r"\$__timeInterval\((\w+)\)", r"toStartOfDay(\1)", asked)
        asked = asked.replace("${project:singlequote}", "'shop'")
        ours, theirs = plain.query(asked).rows, two.whole.query(asked).rows
        assert len(ours) == len(theirs)
        assert sorted(map(str, ours)) == sorted(map(str, theirs)) or " LIMIT " in asked, asked
    plain.close()


def test_opening_balances_are_summed_over_shards(two: TwoShards, log: SqliteLog) -> None:
    for partition in range(PARTITIONS):
        origins = Origins(log.log_id, partition, ORIGINS)
        assert is_stored(two.reading, origins)
        ours = list(opening_spend(two.reading, _BUDGET, origins, 0))
        assert ours == list(opening_spend(two.whole, _BUDGET, origins, 0))
        assert ours


def test_files_are_written_from_all_shards(two: TwoShards, tmp_path: Path) -> None:
    for store, name in ((two.reading, "ours"), (two.whole, "theirs")):
        Queries(store).export_report(tmp_path / f"{name}.csv", "csv", by=["model"])
        Queries(store).export_calls(tmp_path / f"{name}.jsonl", "jsonl")
    assert (tmp_path / "ours.csv").read_text() == (tmp_path / "theirs.csv").read_text()
    ours, theirs = ((tmp_path / f"{n}.jsonl").read_text().splitlines() for n in ("ours", "theirs"))
    assert sorted(ours) == sorted(theirs)


def test_pages_of_the_dashboard_read_all_shards(two: TwoShards) -> None:
    pages = ("/", "/budgets", "/data-health")

    async def look() -> None:
        async with TestClient(TestServer(dashboard_app(two.reading))) as client:
            for page in pages:
                answer = await client.get(page, params={"range": "all"})
                assert answer.status == 200, (page, await answer.text())

    asyncio.run(look())


def test_repair_and_forget_reach_every_shard(two: TwoShards, log: SqliteLog) -> None:
    two.shards.of(1).command(
        f"DELETE FROM calls WHERE partition = 1 AND origin >= {RELATED}",
        settings={"lightweight_deletes_sync": "2"},
    )
    assert stored(two.reading) != stored(two.whole)
    wanted = Wanted.of(1, RELATED, ORIGINS - 1, None, None)
    done = carry_out(two.shards, SqliteSource(log), wanted, quiet=True)
    assert done.events
    assert stored(two.reading) == stored(two.whole)

    gone = forget(two.reading, FORGOTTEN, shards=two.shards)
    assert gone == find(two.whole, FORGOTTEN)
    assert all(gone.rows[table] for table in ("annotations", "alerts", "calls", "dead_letters"))
    for asked in (
        "SELECT text, metadata FROM annotations",
        "SELECT user, message, entity FROM alerts",
        "SELECT user, tags, inputs FROM calls",
        "SELECT line FROM dead_letters",
    ):
        assert FORGOTTEN in str(two.whole.query(asked).rows)
        assert FORGOTTEN not in str(two.reading.query(asked).rows)
    assert find(two.reading, FORGOTTEN).total == 0
    (entry,) = Queries(two.reading).audit(action="forget user")
    assert entry.project == "callmeter"


def test_commands_take_the_url_of_all_shards(
    two: TwoShards,
    log: SqliteLog,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The shim is a plain server, which nothing but a test may migrate.
    plain = partial(migrate_shards.migrate_shards, plain_server=True)
    monkeypatch.setattr(migrate_shards, "migrate_shards", plain)
    with served(two) as url:
        assert run(["report", "--json", "--store", url]) == 0
        said = json.loads(capsys.readouterr().out)
        assert said["totals"]["calls"] == Queries(two.whole).report().totals.calls
        assert run(["doctor", "--store", url]) == 0
        assert "2 shards, schema up to date" in capsys.readouterr().out
        assert run(["migrate", "--dry-run", "--store", url]) == 0
        said = capsys.readouterr().out
        assert "shard 2 of 2" in said
        assert "ENGINE = Distributed(`two`, `sharded`, calls)" in said
        first, _, second = url.removeprefix("clickhouse://").partition(",")
        second, _, rest = second.partition("/")
        wrong = f"clickhouse://{second},{first}/{rest}"
        assert run(["migrate", "--dry-run", "--store", wrong]) == 78
        assert "and the URL calls it shard 1 of 2" in capsys.readouterr().err
        # A server's tables are replicated, with a cluster or without; the embedded shim's are not.
        assert run(["report", "--store", f"clickhouse://{first}/{DATABASE}"]) == 78
        assert "is shard 1 of 2: name all shards" in capsys.readouterr().err
        writing = open_shards(url, {})
        try:
            assert [store.sharding for store in writing.stores] == [
                Sharding(2, "sharded", index) for index in range(2)
            ]
            for store in writing.stores:
                check_schema(store)
            stats = Sink(writing, SqliteSource(log)).drain()
            assert (stats.inserts, stats.rebuilds) == (0, 0)  # all is there, and each knows its own
        finally:
            writing.close()


def test_a_question_fails_while_no_shard_answers() -> None:
    with pytest.raises(UnreachableError):
        open_store("clickhouse://127.0.0.1:1,127.0.0.1:2/db?cluster=main", {})


def test_nothing_is_written_to_the_read_side(two: TwoShards) -> None:
    with pytest.raises(PermanentStoreError, match="sharding key"):
        two.reading.insert_block("audit", ["project"], b'{"project":"x"}', fmt="JSONEachRow")


def test_a_url_that_does_not_fit_is_refused(two: TwoShards) -> None:
    for store in (*two.shards.stores, two.reading, two.whole):
        check_schema(store)
    first, second = DATABASES

    def called(database: str, *sharding: Any) -> Store:
        store = DatabaseStore(two.engine, database, Sharding(*sharding) if sharding else None)
        store.cluster = CLUSTER
        return store

    for store, words in (
        (called(first), "is shard 1 of 2: name all shards, in order"),
        (called(first, 3, first, 0), "is shard 1 of 2, and the URL calls it shard 1 of 3"),
        (called(second, 2, first, 0), "is shard 2 of 2, and the URL calls it shard 1 of 2"),
        (called("whole", 2, "whole", 0), "was filled as one store"),
        (called("sharded_all", 3, "sharded"), "has 2 shards, and the URL names 3"),
    ):
        for check in (check_schema, check_opened):
            with pytest.raises(ConfigError, match=words):
                check(store)
        store.close()


def test_the_read_side_must_reach_each_shard_once(two: TwoShards) -> None:
    two.engine.command("CREATE OR REPLACE VIEW sharded.shards AS SELECT * FROM shard0.shards")
    try:
        with pytest.raises(ConfigError, match="leads to the shards 1, 1, not to each of 1 to 2"):
            check_schema(two.reading)
    finally:
        two.engine.command(
            "CREATE OR REPLACE VIEW sharded.shards AS "
            "SELECT shard, of, at FROM shard0.shards WHERE shardNum() = 1 UNION ALL "
            "SELECT shard, of, at FROM shard1.shards WHERE shardNum() = 2"
        )


def test_a_shard_whose_migration_lags_is_seen_from_the_read_side(two: TwoShards) -> None:
    last = two.shards.stores[1]
    last.command(
        "INSERT INTO schema_migrations (version, name, checksum, state, detail) "
        "SELECT version, name, checksum, 'failed', 'statement 1' FROM schema_migrations "
        "WHERE version = 2 AND state = 'done'"
    )
    with pytest.raises(ConfigError, match="0002_events is failed"):
        check_schema(two.reading)
    last.command(
        "INSERT INTO schema_migrations (version, name, checksum, state) "
        "SELECT version, name, checksum, 'done' FROM schema_migrations "
        "WHERE version = 2 AND state = 'done' LIMIT 1"
    )
    check_schema(two.reading)


def test_a_single_store_is_all_of_its_one_shard(two: TwoShards) -> None:
    alone = Shards([two.whole])
    assert len(alone) == 1
    assert all(alone.of(partition) is two.whole for partition in range(9))
