"""SQL in everything that a user, a producer or a file can say: refused, or bound as it stands.

Every text parameter of every public question is tried with every text, and the test fails for a
parameter that it does not know. What producers say is stored and found under its own name.
"""

from __future__ import annotations

import http.client
import inspect
import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from callmeter.errors import CallmeterError, ConfigError, UsageError
from callmeter.pricing.own import parse_own_prices
from callmeter.schema.budgets import Budget
from callmeter_sinks.clickhouse.chdb_store import ChdbStore
from callmeter_sinks.clickhouse.opening import open_store
from callmeter_sinks.clickhouse.retention import apply_retention
from callmeter_sinks.clickhouse.shim import ShimServer
from callmeter_sinks.clickhouse.store import PermanentStoreError
from callmeter_sinks.queries import Queries, repricing
from callmeter_sinks.queries.opening import Origins, opening_spend
from support.ledger import LOG, Book, us
from support.stores import land, migrated_chdb

HOSTILE = [
    "x' OR '1'='1",
    "x' OR 1=1 --",
    "'; DROP TABLE calls; --",
    "` OR 1=1 --",
    "`) FROM calls --",
    "model) UNION ALL SELECT 1 --",
    "{p0:String}",
    "{p0:Identifier}",
    "%(p0)s",
    "\\' OR 1=1 --",
    "\\",
    "x\0' OR '1'='1",
    "x\n;\tDROP TABLE calls",
    "1); SELECT file('/etc/passwd') --",
    "/* */ OR /* */ 1",
    "’ OR ’1’=’1",
    "x*",
]
NOTHING: tuple[Any, ...] = ([], (), {}, 0)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChdbStore]:
    """One ordinary call; and for each hostile text one whose every name is that text."""
    with migrated_chdb(tmp_path_factory.mktemp("injection") / "db") as opened:
        book = Book()
        book.envelope(
            book.call(number=1, cost="0.5", user="ann", session="s", tags={"team": "red"}),
            {"kind": "metric", "ts_us": us("2026-03-03T09:00"), "name": "loss", "value": 1.0,
             "experiment": "run", "labels": {"split": "train"}},
            {"kind": "experiment", "ts_us": us("2026-03-03T09:00"), "slug": "run", "meta": {"a": 1}
             },
            {"kind": "annotation", "ts_us": us("2026-03-03T09:00"), "text": "hi",
             "metadata": {"audit": {"user": "ann", "model": "gpt-4o", "detail": {}}}},
        )  # fmt: skip
        book.checkpoint()
        for number, text in enumerate(HOSTILE, 1):
            mean = Book(project=text, partition=number)
            mean.envelope(
                mean.call(number=100 + number, model=text, provider=text, user=text, session=text,
                          name=text, phase=text, program=text, error_type=text,
                          tags={text: text}, attributes={text: text}, cost="0.25"),
                {"kind": "metric", "ts_us": us("2026-03-03T09:00"), "name": text, "value": 2.0,
                 "experiment": text, "labels": {text: text}},
                {"kind": "experiment", "ts_us": us("2026-03-03T09:00"), "slug": text,
                 "meta": {text: text}},
                {"kind": "annotation", "ts_us": us("2026-03-03T09:00"), "text": text,
                 "experiment": text,
                 "metadata": {"audit": {"user": text, "model": text, "detail": {text: text}}}},
            )  # fmt: skip
            mean.checkpoint()
            land(opened, mean.take(), partition=number)
        land(opened, book.take())
        yield opened


@pytest.fixture
def ask(store: ChdbStore) -> Queries:
    return Queries(store)


@pytest.fixture(autouse=True)
def untouched(store: ChdbStore) -> Iterator[None]:
    """Whatever was asked, nothing was written, made or dropped."""
    sql = "SELECT name, total_rows FROM system.tables WHERE database = currentDatabase() ORDER BY 1"
    before = store.query(sql).rows
    yield
    assert store.query(sql).rows == before


#: Arguments without which a question cannot be asked.
NEEDED: dict[str, dict[str, Any]] = {
    "trace": {"trace_id": "ab" * 16},
    "series": {"name": "loss"},
    "program_metrics": {"program": "bot"},
}
#: Numbers and times take no text; files are named by the caller, and the engine quotes their names.
NO_TEXT = {
    "since", "until", "limit", "top", "before", "descending", "closed", "path", "latencies",
}  # fmt: skip
#: What limits an answer to rows that say so; a text that nobody has said must find nothing.
LIMITS = {
    "project", "filters", "rule", "kind", "budget", "user", "model", "action", "source", "phase",
    "program", "name", "experiment", "experiments", "labels", "metadata", "text", "reason",
    "trace_id",
}  # fmt: skip
#: What chooses columns, an order or a format: a known word, or refused.
WORDS = {"by", "order", "fmt"}
METHODS = [
    name for name, _ in inspect.getmembers(Queries, inspect.isfunction) if not name.startswith("_")
]
PARAMETERS = [
    (method, parameter)
    for method in METHODS
    for parameter in inspect.signature(getattr(Queries, method)).parameters
    if parameter != "self" and parameter not in NO_TEXT
]


def test_every_parameter_is_known() -> None:
    assert {parameter for _, parameter in PARAMETERS} <= LIMITS | WORDS


def given(parameter: str, text: str) -> Iterator[Any]:
    """The ways in which a text can stand in a parameter."""
    if parameter == "filters":
        yield from ({"model": text}, {"user": [text, "y"]}, {f"tag:{text}": text}, {text: "x"})
    elif parameter in ("by", "experiments"):
        yield [text]
    elif parameter in ("labels", "metadata"):
        yield from ([text], [f"{text}={text}"], [f"split={text}"])
    else:
        yield text


def answered(answer: Any) -> bool:
    """Whether an answer holds any row."""
    if hasattr(answer, "rows"):
        return bool(answer.rows)
    if hasattr(answer, "values") and hasattr(answer, "steps"):
        return bool(answer.values)
    return bool(answer.calls if hasattr(answer, "calls") else answer)


@pytest.mark.parametrize(("method", "parameter"), PARAMETERS)
def test_no_text_widens_a_question(
    ask: Queries, tmp_path: Path, method: str, parameter: str
) -> None:
    question = getattr(ask, method)
    for hostile in HOSTILE:
        text = f"nobody said {hostile}"
        for value in given(parameter, text):
            arguments = {**NEEDED.get(method, {}), parameter: value}
            if method.startswith("export"):
                arguments = {"path": tmp_path / "file", "fmt": "jsonl", **arguments}
            if parameter in WORDS:
                with pytest.raises(UsageError):
                    question(**arguments)
                continue
            with suppress(UsageError):
                answer = question(**arguments)
                if method.startswith("export"):
                    answer = (tmp_path / "file").read_text()
                assert not answered(answer), (method, value, answer)


@pytest.mark.parametrize("text", HOSTILE)
def test_what_producers_say_is_found_under_its_own_name_and_no_other(
    ask: Queries, text: str
) -> None:
    def one(rows: list[Any]) -> Any:
        (row,) = rows
        return row

    mine = ask.report(["project", "model", "user", f"tag:{text}"], filters={"model": text})
    assert one(mine.rows).key == {
        "project": text, "model": text, "user": text, f"tag:{text}": text,
    }  # fmt: skip
    assert mine.totals.calls == 1
    assert one(ask.report(["model"], project=text).rows).key == {"model": text}
    assert one(ask.calls(filters={"session": text})).name == text
    assert one(ask.calls(filters={f"attribute:{text}": text})).attributes == {text: text}
    assert one(ask.usage(project=text)[:1]).key == {"model": text}
    # A filter of labels is key=value: a key with that sign in it cannot be said.
    labels = [] if "=" in text else [text, f"{text}={text}"]
    assert ask.series(text, experiment=text, labels=labels).values == (2.0,)
    assert one(ask.catalog(experiments=[text])).label_keys == [text]
    assert one(ask.experiments(project=text, text=text)).metadata == {text: text}
    assert one(ask.audit(user=text, model=text, action=text)).detail == {text: text}
    assert ask.program_metrics(text, phase=text).model_calls == 1
    assert repricing.unpriced(ask.store, since=None, until=None, project=text) == []
    priced = repricing.priced_calls(
        ask.store, project=text, since=datetime(2026, 1, 1, tzinfo=UTC),
        until=datetime(2027, 1, 1, tzinfo=UTC),
    )  # fmt: skip
    assert {row.model for row in priced} <= {text}


@pytest.mark.parametrize("text", HOSTILE)
def test_budgets_scopes_are_bound(store: ChdbStore, text: str) -> None:
    number = HOSTILE.index(text) + 1
    origins = Origins(LOG, number, 100)
    for scope in ({"model": [text]}, {f"tag:{text}": [text]}, {"project": [text], "user": [text]}):
        budget = Budget(id="b", scope=scope, per=f"tag:{text}")
        rows = opening_spend(store, budget, origins, 0)
        assert [(row.entity, row.calls) for row in rows] == [(text, 1)]
    for budget in (Budget(id="b", scope={text: ["x"]}), Budget(id="b", per=text)):
        with pytest.raises(UsageError, match="no dimension"):
            opening_spend(store, budget, origins, 0)


@pytest.mark.parametrize("text", HOSTILE)
def test_a_price_file_s_fields_are_texts_and_nothing_more(ask: Queries, text: str) -> None:
    quoted = json.dumps(text)
    with suppress(CallmeterError):  # a name that TOML or the format does not allow is refused
        own = parse_own_prices(
            f"[[price]]\nprovider = {quoted}\nmodel = {quoted}\ninput = '1'\noutput = '2'\n"
        )
        assert {entry.provider for entry in own.entries} == {text.lower()}
        # Repricing asks the store by what its calls say, never by what the file says.
        assert ask.calls(filters={"provider": text.rstrip("*"), "model": text.rstrip("*")}) == (
            ask.calls(project=text) if not text.endswith("*") else []
        )


@pytest.mark.parametrize("text", HOSTILE)
def test_names_of_tables_formats_databases_and_clusters(store: ChdbStore, text: str) -> None:
    for wrong in (
        lambda: store.insert_block(text, ["k"], b""),
        lambda: store.query_bytes("SELECT 1", text),
        lambda: store.query_file("SELECT 1", text, Path("/nowhere")),
        lambda: store.query("SELECT {a:String}", {text: 1}),
        lambda: apply_retention(store, {text: 3}),
        lambda: open_store("clickhouse://h/db?" + urlencode({"cluster": text}), {}),
        lambda: open_store("clickhouse://h/" + urlencode({"": text})[1:], {}),
    ):
        with pytest.raises((UsageError, ConfigError, PermanentStoreError)):
            wrong()


@pytest.fixture(scope="module")
def shim(store: ChdbStore) -> Iterator[ShimServer]:
    with ShimServer(store) as server:
        yield server


def over_http(shim: ShimServer, **fields: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection(*shim.address, timeout=60)
    try:
        connection.request("GET", "/?" + urlencode(fields))
        answer = connection.getresponse()
        return answer.status, answer.read().decode("utf-8", "replace")
    finally:
        connection.close()


@pytest.mark.parametrize("text", HOSTILE)
def test_the_port_of_an_embedded_store_binds_too(shim: ShimServer, text: str) -> None:
    remote = open_store(shim.url, {})
    try:
        ask = Queries(remote)
        assert ask.report(["model"], filters={"model": f"nobody {text}"}).rows == []
        (row,) = ask.report(["model"], filters={"model": text}).rows
        assert row.key == {"model": text}
        assert remote.query("SELECT {t:String}", {"t": text}).rows == [(text,)]
    finally:
        remote.close()
    # Whatever stands in a statement, a setting's name or its value: read, or refused.
    for fields in (
        {"query": text},
        {"query": f"SELECT 1 {text}"},
        {"query": "SELECT 1", "database": text},
        {"query": "SELECT 1", text: "1"},
        {"query": "SELECT 1", "max_execution_time": text},
        {"query": "SELECT 1", "default_format": text},
    ):
        status, said = over_http(shim, **fields)
        assert status in (200, 400, 403, 500), said
        assert "root:" not in said  # no file was read


WRITES: list[Callable[[str], str]] = [
    lambda text: f"INSERT INTO calls (model) VALUES ('{text}')",
    lambda text: f"SELECT 1 INTO OUTFILE '/tmp/{len(text)}.out'",
    lambda text: f"SELECT * FROM file('/etc/passwd', 'LineAsString') -- {text}",
    lambda text: "DROP TABLE calls",
    lambda text: "ALTER TABLE calls DELETE WHERE 1",
    lambda text: "SYSTEM STOP MERGES",
    lambda text: "SELECT 1; DROP TABLE calls",
]


@pytest.mark.parametrize("number", range(len(WRITES)))
def test_the_port_only_reads(shim: ShimServer, number: int) -> None:
    status, said = over_http(shim, query=WRITES[number]("x"))
    assert status in (400, 403, 500), said
