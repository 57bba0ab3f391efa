"""forget: nothing in the store says who it was or what they wrote; every figure says the same."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from callmeter.embedded import STORE_DIRECTORY, Embedded
from callmeter_sinks.audit import AuditReader
from callmeter_sinks.clickhouse.opening import open_store
from callmeter_sinks.clickhouse.store import Store
from callmeter_sinks.verify import verify
from support.cli import callmeter
from support.wire_producer import WireProducer, send

WHO = "alice@example.com"
OTHER = "bob@example.com"
SECRET = "my words"


def events(producer: WireProducer, user: str) -> list[dict[str, Any]]:
    """What stands beside the calls: an open call, a note, a cost, a bad line."""
    now_us = time.time_ns() // 1000
    begun = producer.call(now_us, 7)
    call = producer.call(now_us, 0)["call_id"]
    return [
        {key: begun[key] for key in ("ts_us", "call_id", "trace_id", "started_us", "operation")}
        | {"kind": "call_begin", "user": user, "inputs": [SECRET], "tags": {"who": user}},
        {"kind": "annotation", "ts_us": now_us, "text": SECRET, "call_id": call},
        {"kind": "cost", "ts_us": now_us, "started_us": now_us, "cost_pico": "5", "source": "x",
         "user": user, "note": SECRET},
        {"kind": "call_end", "user": user, "inputs": SECRET},
    ]  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two users; one of Alice's sources names her in a tag alone."""
    directory = tmp_path_factory.mktemp("forget") / "home"
    texts = {"inputs": [SECRET], "outputs": [SECRET], "error_message": SECRET, "cost_pico": "7"}
    with Embedded(directory) as pipeline:
        for user, fields in (
            (WHO, {"user": WHO, "tags": {"who": WHO, "team": "a"}}),
            (WHO, {"tags": {"who": WHO, "team": "a"}, "attributes": {"login": WHO}}),
            (OTHER, {"user": OTHER, "tags": {"team": "a"}}),
        ):
            producer = WireProducer(fields={**texts, **fields})
            send(pipeline.url, [producer.envelope(*events(producer, user))])
    return directory


def dump(store: Store) -> dict[str, str]:
    """Every row of every table that keeps rows, as text."""
    tables = store.query(
        "SELECT name FROM system.tables WHERE database = currentDatabase() "
        "AND engine LIKE '%MergeTree'"
    ).rows
    return {
        name: store.query_bytes(f"SELECT * FROM `{name}`", "JSONEachRow").decode()
        for (name,) in tables
    }


def figures(store: Store) -> object:
    sums = "count(), sum(input_tokens), sum(output_tokens), sum(cost)"
    return [
        store.query(f"SELECT {sums} FROM calls").rows,
        store.query("SELECT count(), sum(cost) FROM costs").rows,
        store.query("SELECT sum(calls), sum(cost), sum(input_tokens) FROM rollup_1h").rows,
        [store.query(f"SELECT count() FROM {t}").rows for t in ("annotations", "dead_letters")],
    ]


def test_texts_and_id_are_gone_and_figures_are_as_they_were(home: Path) -> None:
    where = f"chdb:{home / STORE_DIRECTORY}"
    store = open_store(where)
    before, words = figures(store), dump(store)
    assert verify(store).equal
    assert sum(text.count(WHO) for text in words.values()) > 10
    store.close()

    dry = callmeter("forget", "--user", WHO, "--dir", home, "--dry-run", "--json").json()
    assert dry["rows"]["calls"] == 6
    done = callmeter("forget", "--user", WHO, "--dir", home, "--yes", "--reference", "T-17")
    assert done.code == 0, done.err
    assert "The log keeps what was sent until its retention ends" in done.out

    store = open_store(where)
    try:
        assert figures(store) == before
        result = verify(store)
        assert [check for check in result.checks if not check.equal] == []
        after = dump(store)
        assert {table for table, text in after.items() if WHO in text} == set()
        # Bob's words are all that is left, and all of them are.
        kept = {
            t: [line for line in text.splitlines() if SECRET in line] for t, text in after.items()
        }
        assert {t: len(lines) for t, lines in kept.items() if lines} == {
            "calls": 3, "calls_open": 1, "annotations": 1, "costs": 1, "dead_letters": 1,
        }  # fmt: skip
        tags = store.query("SELECT DISTINCT tags FROM calls").rows
        assert tags == [({"team": "a"},)]
        (entry,) = AuditReader(store).query(action="forget user")
        assert entry.detail["reference"] == "T-17"
        assert entry.detail["rows"]["calls"] == 6
        assert entry.user == ""
    finally:
        store.close()
    again = callmeter("forget", "--user", WHO, "--dir", home, "--json").json()
    assert set(again["rows"].values()) == {0}
    # No statement that the engine keeps has the id in it.
    for path in (home / STORE_DIRECTORY).rglob("mutation_*.txt"):
        assert WHO not in path.read_text()
    # And the pipeline goes on.
    producer = WireProducer()
    with Embedded(home) as pipeline:
        send(pipeline.url, [producer.envelope()])
    assert json.loads(callmeter("verify", "--dir", home, "--json").out)["equal"] is True


def test_an_empty_id_is_nobody(home: Path) -> None:
    ran = callmeter("forget", "--user", "", "--dir", home, "--yes")
    assert (ran.code, "must not be empty" in ran.err) == (64, True)
