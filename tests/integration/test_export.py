"""Answers as files: written by the engine, whole or not at all, and equal to what is stored."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from callmeter.cli.app import run
from callmeter.errors import CannotWriteError, UsageError
from callmeter.log.sqlite_log import SqliteLog
from callmeter_sinks.clickhouse.chdb_store import ChdbStore
from callmeter_sinks.clickhouse.opening import open_store
from callmeter_sinks.clickhouse.shim import ShimServer
from callmeter_sinks.clickhouse.store import PermanentStoreError, Store
from callmeter_sinks.queries import Queries
from callmeter_sinks.sink import Sink
from callmeter_sinks.source import SqliteSource
from support.metered import MeteredStream
from support.stored import append
from support.stores import migrated_chdb

pa = pytest.importorskip("pyarrow")


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChdbStore]:
    home = tmp_path_factory.mktemp("export")
    with migrated_chdb(home / "store") as store:
        with SqliteLog(home / "log.db", partitions=1) as log:
            append(log, 0, MeteredStream(log.log_id, 0).checkpoint(envelopes=20, events=40))
            Sink(store, SqliteSource(log)).drain()
        yield store


@pytest.fixture(scope="module", params=["in process", "over HTTP"])
def store(engine: ChdbStore, request: pytest.FixtureRequest) -> Iterator[Store]:
    if request.param == "in process":
        yield engine
        return
    with ShimServer(engine) as shim:
        remote = open_store(shim.url, {})
        yield remote
        remote.close()


def parquet(path: Path) -> list[dict[str, Any]]:
    from pyarrow import parquet as files

    return files.read_table(path).to_pylist()


def arrow(path: Path) -> list[dict[str, Any]]:
    with pa.OSFile(str(path)) as file:
        return pa.ipc.open_file(file).read_all().to_pylist()


def jsonl(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def table(path: Path) -> list[dict[str, Any]]:
    return list(csv.DictReader(path.read_text().splitlines()))


READ: dict[str, Callable[[Path], list[dict[str, Any]]]] = {
    "parquet": parquet, "arrow": arrow, "jsonl": jsonl, "csv": table,
}  # fmt: skip


@pytest.mark.parametrize("fmt", READ)
def test_calls_in_every_format_are_those_that_are_stored(
    store: Store, tmp_path: Path, fmt: str
) -> None:
    path = tmp_path / "it's a file"
    Queries(store).export_calls(path, fmt, project="shop", filters={"model": ["gpt-4o"]})
    rows = READ[fmt](path)
    stored = store.query(
        "SELECT count(), sum(cost), countIf(cost IS NULL), uniqExact(trace_id) FROM calls "
        "WHERE model = 'gpt-4o'"
    ).rows[0]
    costs = [row["cost_usd"] for row in rows if row["cost_usd"] not in (None, "")]
    assert (
        len(rows), sum(map(Decimal, costs)), len(rows) - len(costs),
        len({row["trace_id"] for row in rows}),
    ) == stored  # fmt: skip
    assert {row["model"] for row in rows} == {"gpt-4o"}
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("by", [[], ["model"], ["day", "model", "status"], ["user"], ["tag:team"]])
def test_a_report_as_a_file_has_the_rows_of_the_report(
    store: Store, tmp_path: Path, by: list[str]
) -> None:
    ask = Queries(store)
    expected = [
        {**{k: v if isinstance(v, str) else v.isoformat() for k, v in row.key.items()},
         **{name: getattr(row.figures, name) for name in row.figures.__slots__}}
        for row in ask.report(by, top=7).rows
    ]  # fmt: skip
    ask.export_report(tmp_path / "r", "parquet", by, top=7)
    found = [
        {k: v.isoformat() if hasattr(v, "isoformat") else v for k, v in row.items()}
        for row in parquet(tmp_path / "r")
    ]
    for row in (*found, *expected):
        for name in ("latency_p50_ms", "latency_p95_ms", "latency_p99_ms"):
            row[name] = None if row[name] is None else round(row[name], 9)
    assert found == expected
    assert found


def test_answers_as_arrow_tables_and_data_frames(store: Store) -> None:
    ask = Queries(store)
    calls = ask.calls_table(filters={"model": "gpt-4o"})
    assert calls.num_rows == ask.report([], filters={"model": "gpt-4o"}).totals.calls + len(
        [row for row in ask.calls(limit=1000, filters={"model": "gpt-4o"})
         if row.operation == "program"]
    )  # fmt: skip
    frame = ask.report_table(["model"]).to_pandas()
    expected = {row.key["model"]: row.figures.cost_usd for row in ask.report(["model"]).rows}
    assert dict(zip(frame["model"], frame["cost_usd"], strict=True)) == expected


def test_a_file_appears_whole_or_not_at_all(
    engine: ChdbStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = Queries(engine)
    target = tmp_path / "calls.parquet"
    target.write_text("what was there")
    real = ChdbStore.query_file

    def breaks(self: ChdbStore, sql: str, fmt: str, path: Path, *rest: Any) -> None:
        real(self, sql, fmt, path, *rest)
        assert path.stat().st_size > 0
        raise PermanentStoreError(241, "in the middle")

    with monkeypatch.context() as patched:
        patched.setattr(ChdbStore, "query_file", breaks)
        with pytest.raises(PermanentStoreError):
            ask.export_calls(target, "parquet")
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [
        ("calls.parquet", "what was there")
    ]
    ask.export_calls(target, "parquet")
    assert len(parquet(target)) == engine.query("SELECT count() FROM calls").rows[0][0]
    with pytest.raises(CannotWriteError, match="cannot be written"):
        ask.export_calls(tmp_path / "nowhere" / "x", "csv")
    with pytest.raises(UsageError, match="no format 'xml'"):
        ask.export_calls(target, "xml")


def test_the_commands(
    engine: ChdbStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with ShimServer(engine) as shim:
        at = ("--store", shim.url)
        calls, days = tmp_path / "calls.jsonl", tmp_path / "days.txt"
        assert run(["export", "calls", *at, "--output", str(calls), "--where", "model=gpt-4o"]) == 0
        assert "calls.jsonl (" in capsys.readouterr().out
        assert {row["model"] for row in jsonl(calls)} == {"gpt-4o"}
        report = ["report", *at, "--by", "day,model", "--top", "3"]
        assert run([*report, "--output", str(days), "--format", "csv"]) == 0
        assert len(table(days)) == 3
        assert run([*report, "--output", str(days)]) == 64  # .txt is no format
        assert run([*report, "--format", "csv"]) == 64
        assert run([*report, "--output", str(days), "--format", "csv", "--json"]) == 64
        assert run(["export", "calls", *at]) == 64
