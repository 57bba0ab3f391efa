"""The shim before a real engine: who may read what, and how it refuses."""

from __future__ import annotations

import http.client
import json
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest

from callmeter.errors import ConfigError
from callmeter_sinks.clickhouse.chdb_store import ChdbStore
from callmeter_sinks.clickhouse.opening import open_store
from callmeter_sinks.clickhouse.shim import ShimServer
from callmeter_sinks.clickhouse.store import PermanentStoreError, Store


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChdbStore]:
    store = ChdbStore(tmp_path_factory.mktemp("shim") / "db")
    store.command("CREATE TABLE t (k UInt64) ENGINE = MergeTree ORDER BY k")
    store.command("INSERT INTO t SELECT number FROM numbers(3)")
    yield store
    store.close()


@pytest.fixture(scope="module")
def shim(engine: ChdbStore) -> Iterator[ShimServer]:
    with ShimServer(engine) as server:
        yield server


@pytest.fixture(scope="module")
def reader(shim: ShimServer) -> Iterator[Store]:
    store = open_store(shim.url, {})
    yield store
    store.close()


def ask(
    shim: ShimServer, query: str, headers: dict[str, str] | None = None, **more: str
) -> tuple[int, bytes, dict[str, str]]:
    connection = http.client.HTTPConnection(*shim.address, timeout=30)
    try:
        path = "/?" + urlencode({"query": query, **more})
        connection.request("GET", path, headers=headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read(), dict(answer.getheaders())
    finally:
        connection.close()


def test_a_reader_reads(reader: Store, shim: ShimServer) -> None:
    assert reader.query("SELECT sum(k) FROM t WHERE k > {k:UInt64}", {"k": 1}).rows == [(2,)]
    status, body, headers = ask(shim, "SELECT count() AS n FROM t FORMAT JSON")
    assert (status, json.loads(body)["data"]) == (200, [{"n": 3}])
    assert "X-ClickHouse-Query-Id" in headers
    assert ask(shim, "SELECT 1;  -- the end")[:2] == (200, b"1\n")


def test_the_default_format_is_the_one_asked_for(shim: ShimServer) -> None:
    assert ask(shim, "SELECT 1 AS a", default_format="JSONEachRow")[1] == b'{"a":1}\n'


@pytest.mark.parametrize(
    "statement",
    [
        "DROP TABLE t",
        "INSERT INTO t VALUES (9)",
        "INSERT INTO t SELECT 9",
        "CREATE TABLE x (k UInt8) ENGINE = Memory",
        "ALTER TABLE t DELETE WHERE 1",
        "TRUNCATE TABLE t",
        "OPTIMIZE TABLE t",
        "SYSTEM STOP MERGES",
        "KILL QUERY WHERE 1",
        "SET readonly = 0",
        "USE system",
        "SELECT 1; DROP TABLE t",
        "SELECT 1 SETTINGS readonly = 0",
        "SELECT 1 SETTINGS max_threads = 1",
        "SELECT 1 FORMAT Template SETTINGS format_template_row = '/etc/hostname'",
        "SELECT file('/etc/hostname')",
        "SELECT `fi\\x6ce`('/etc/hostname')",
        "SELECT/**/file/**/('/etc/hostname')",
        "SELECT * FROM file('/etc/hostname', 'LineAsString')",
        "SELECT * FROM '/etc/hostname'",
        "DESCRIBE TABLE file('/etc/hostname')",
        "EXPLAIN SELECT * FROM file('/etc/hostname', 'LineAsString')",
        "SELECT * FROM url('http://127.0.0.1:9/', 'LineAsString')",
        "SELECT * FROM remote('127.0.0.1:9', 'system.one')",
        "SELECT * FROM executable('id', 'TSV', 'x String')",
        "SELECT * FROM Python(os)",
        "WITH x AS (SELECT file('/etc/hostname')) SELECT * FROM x",
        "",
    ],
)
def test_a_reader_reaches_nothing_but_the_store(
    reader: Store, engine: ChdbStore, statement: str
) -> None:
    with pytest.raises(PermanentStoreError):
        reader.command(statement)
    assert engine.query("SELECT count() FROM t").rows == [(3,)]


@pytest.mark.parametrize("hidden", ["SELECT 1 INTO OUTFILE '{}'", "SELECT $$'$$ INTO OUTFILE '{}'"])
def test_a_reader_writes_no_file(reader: Store, tmp_path: Path, hidden: str) -> None:
    with pytest.raises(PermanentStoreError, match="OUTFILE"):
        reader.command(hidden.format(tmp_path / "out"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "name", ["readonly", "format_template_row", "max_memory_usage", "x' OR '1"]
)
def test_a_reader_sets_only_what_is_harmless(shim: ShimServer, name: str) -> None:
    assert ask(shim, "SELECT 1", max_execution_time="5")[0] == 200
    status, body, headers = ask(shim, "SELECT 1", **{name: "0"})
    assert (status, headers["X-ClickHouse-Exception-Code"]) == (403, "164")
    assert b"cannot be given" in body


def test_one_request_leaves_nothing_to_the_next(shim: ShimServer) -> None:
    assert ask(shim, "SELECT currentDatabase()", database="system")[1] == b"system\n"
    assert ask(shim, "SELECT currentDatabase()")[1] == b"default\n"
    assert ask(shim, "SELECT getSetting('max_block_size')", max_block_size="7")[1] == b"7\n"
    assert ask(shim, "SELECT getSetting('max_block_size')")[1] != b"7\n"


def test_errors_carry_the_engine_s_code(shim: ShimServer) -> None:
    status, body, headers = ask(shim, "SELECT * FROM nowhere")
    assert (status, headers["X-ClickHouse-Exception-Code"]) == (500, "60")
    assert b"nowhere" in body


def test_a_name_that_is_not_this_machine_s_is_refused(shim: ShimServer) -> None:
    status, _, headers = ask(shim, "SELECT 1", {"Host": "evil.example:8123"})
    assert (status, headers["X-ClickHouse-Exception-Code"]) == (403, "516")


def test_a_password_in_each_of_its_places(engine: ChdbStore) -> None:
    with ShimServer(engine, password="pw") as server:
        basic = b64encode(b"grafana:pw").decode()
        assert ask(server, "SELECT 1", {"X-ClickHouse-Key": "pw"})[0] == 200
        assert ask(server, "SELECT 1", {"Authorization": f"Basic {basic}"})[0] == 200
        assert ask(server, "SELECT 1", password="pw")[0] == 200
        for wrong in ({}, {"X-ClickHouse-Key": "px"}, {"Authorization": "Basic %%%"}):
            assert ask(server, "SELECT 1", wrong)[0] == 403


def test_beyond_loopback_only_with_a_password(engine: ChdbStore) -> None:
    with pytest.raises(ConfigError, match="password"):
        ShimServer(engine, host="0.0.0.0")


def test_a_taken_port_is_said(engine: ChdbStore, shim: ShimServer) -> None:
    with pytest.raises(ConfigError, match=str(shim.address[1])):
        ShimServer(engine, port=shim.address[1])


def test_a_body_that_is_no_request(shim: ShimServer) -> None:
    connection = http.client.HTTPConnection(*shim.address, timeout=30)
    connection.request("POST", "/", body=b"not gzip", headers={"Content-Encoding": "gzip"})
    assert connection.getresponse().status == 400
    connection.close()


def test_ping(shim: ShimServer) -> None:
    connection = http.client.HTTPConnection(*shim.address, timeout=30)
    connection.request("GET", "/ping")
    assert connection.getresponse().read() == b"Ok.\n"
    connection.close()
