"""What every store promises (``callmeter_sinks.clickhouse.store.Store``), over all of them.

HTTP goes to the shim over the very engine that the chDB store has open; every test works in tables
of its own.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from callmeter.errors import ConfigError, UnreachableError, UsageError
from callmeter_sinks.clickhouse.chdb_store import ChdbStore
from callmeter_sinks.clickhouse.opening import open_store
from callmeter_sinks.clickhouse.shim import ShimServer
from callmeter_sinks.clickhouse.store import PermanentStoreError, Store

AWKWARD = [
    "it's", "a\\b", "\t\n\r\0", "{x:String}", "%s %(x)s", "é漢😀", "'; DROP TABLE t --", "\\N",
    "", "NULL",    "x" * 10_000,
]  # fmt: skip


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChdbStore]:
    store = ChdbStore(tmp_path_factory.mktemp("stores") / "db")
    yield store
    store.close()


@pytest.fixture(scope="module")
def shim(engine: ChdbStore) -> Iterator[ShimServer]:
    with ShimServer(engine, writable=True) as server:
        yield server


@pytest.fixture(scope="module", params=["chdb", "http", "http-zstd", "http-plain"])
def store(request: pytest.FixtureRequest, engine: ChdbStore, shim: ShimServer) -> Iterator[Store]:
    if request.param == "chdb":
        yield engine
        return
    compress = {"http": "lz4", "http-zstd": "zstd", "http-plain": "no"}[request.param]
    remote = open_store(f"{shim.url}&compress={compress}", {})
    yield remote
    remote.close()


@pytest.fixture
def table(store: Store) -> Iterator[str]:
    store.command(
        "CREATE TABLE t (k UInt64, s String) ENGINE = MergeTree ORDER BY k "
        "SETTINGS non_replicated_deduplication_window = 100"
    )
    yield "t"
    store.command("DROP TABLE t")


def rows(*values: tuple[int, str]) -> bytes:
    """RowBinary, as the sink sends it; strings shorter than 128 bytes."""
    out = b""
    for number, text in values:
        raw = text.encode()
        out += number.to_bytes(8, "little") + bytes([len(raw)]) + raw
    return out


def test_a_query_returns_names_and_typed_rows(store: Store) -> None:
    result = store.query(
        "SELECT toUInt64(1) AS a, toDecimal128('1.5', 12) AS money, "
        "toDateTime64('2026-03-01 12:00:00.000001', 6, 'UTC') AS at, NULL AS nothing, "
        "map('x', toUInt64(2)) AS amounts"
    )
    assert result.columns == ("a", "money", "at", "nothing", "amounts")
    assert result.rows == [
        (1, Decimal("1.5"), datetime(2026, 3, 1, 12, 0, 0, 1, UTC), None, {"x": 2})
    ]
    assert result.rows[0][2].tzinfo is not None
    assert result.dicts()[0]["a"] == 1


def test_no_rows_are_an_empty_list(store: Store) -> None:
    assert store.query("SELECT 1 AS a WHERE 0").rows == []


@pytest.mark.parametrize("text", AWKWARD)
def test_a_bound_value_arrives_as_it_is(store: Store, text: str) -> None:
    result = store.query(
        "SELECT {x:String} AS a, {y:Array(String)} AS b", {"x": text, "y": [text, text]}
    )
    assert result.rows == [(text, [text, text])]


def test_a_parameter_without_a_placeholder_is_refused(store: Store) -> None:
    with pytest.raises(UsageError, match="no placeholder for x"):
        store.query("SELECT %(x)s", {"x": "1"})
    with pytest.raises(UsageError, match="no placeholder for x"):
        store.command("SELECT 1", {"x": "1"})


def test_settings_hold_for_one_statement(store: Store) -> None:
    asked = "SELECT toUInt64(getSetting('max_block_size'))"
    default = store.query(asked).rows
    assert store.query(asked, settings={"max_block_size": 1234}).rows == [(1234,)]
    assert store.query(asked).rows == default


def test_a_block_is_inserted_byte_for_byte(store: Store, table: str) -> None:
    store.insert_block(table, ["k", "s"], rows((1, "a"), (2**64 - 1, "é\n")))
    assert store.query("SELECT * FROM t ORDER BY k").rows == [(1, "a"), (2**64 - 1, "é\n")]


def test_another_format(store: Store, table: str) -> None:
    store.insert_block(table, ["k"], b'{"k": 7}\n', fmt="JSONEachRow")
    assert store.query("SELECT k FROM t").rows == [(7,)]


def test_a_token_counts_once_and_another_counts_again(store: Store, table: str) -> None:
    for _ in range(3):
        store.insert_block(table, ["k", "s"], rows((1, "a")), token="one")
    assert store.query("SELECT count() FROM t").rows == [(1,)]
    store.insert_block(table, ["k", "s"], rows((1, "a")), token="two")
    assert store.query("SELECT count() FROM t").rows == [(2,)]


def test_a_token_counts_once_in_every_view_behind_views(store: Store, table: str) -> None:
    window = "SETTINGS non_replicated_deduplication_window = 100"
    store.command(f"CREATE TABLE t2 (n UInt64) ENGINE = MergeTree ORDER BY n {window}")
    store.command(f"CREATE TABLE t3 (n UInt64) ENGINE = MergeTree ORDER BY n {window}")
    store.command("CREATE MATERIALIZED VIEW v2 TO t2 AS SELECT count() AS n FROM t")
    store.command("CREATE MATERIALIZED VIEW v3 TO t3 AS SELECT n FROM t2")
    try:
        for _ in range(2):
            store.insert_block(table, ["k", "s"], rows((1, "a"), (2, "b")), token="views")
        assert store.query("SELECT sum(n), count() FROM t3").rows == [(2, 1)]
    finally:
        for name in ("v3", "v2", "t3", "t2"):
            store.command(f"DROP TABLE {name}")


def test_one_insert_is_one_block_over_many_partitions(store: Store) -> None:
    store.command("CREATE TABLE wide (k UInt64) ENGINE = MergeTree PARTITION BY k ORDER BY k")
    try:
        block = b"".join(number.to_bytes(8, "little") for number in range(150))
        store.insert_block("wide", ["k"], block)
        assert store.query("SELECT count() FROM wide").rows == [(150,)]
    finally:
        store.command("DROP TABLE wide")


def test_a_refusal_has_the_engine_s_code(store: Store) -> None:
    with pytest.raises(PermanentStoreError) as unknown:
        store.query("SELECT * FROM no_such_table")
    assert unknown.value.code == 60
    assert "no_such_table" in unknown.value.message
    with pytest.raises(PermanentStoreError) as syntax:
        store.command("SELECT 1 +")
    assert syntax.value.code == 62


def test_a_bad_block_is_refused_whole(store: Store, table: str) -> None:
    with pytest.raises(PermanentStoreError):
        store.insert_block(table, ["k", "s"], rows((1, "a")) + b"\x01")
    assert store.query("SELECT count() FROM t").rows == [(0,)]


def test_names_of_tables_and_formats_are_checked(store: Store) -> None:
    with pytest.raises(UsageError):
        store.insert_block("t; DROP TABLE t", ["k"], b"")
    with pytest.raises(UsageError):
        store.insert_block("t", ["k"], b"", fmt="CSV SETTINGS readonly=0")


def test_a_column_cannot_leave_its_quotes(store: Store, table: str) -> None:
    with pytest.raises(PermanentStoreError):
        store.insert_block(table, ["k`) VALUES (1) --"], rows((1, "a")))
    assert store.query("SELECT count() FROM t").rows == [(0,)]


def test_the_engine_s_own_encodings(store: Store) -> None:
    assert store.query_bytes("SELECT {n:UInt8} AS a", "CSVWithNames", {"n": 3}) == b'"a"\n3\n'
    assert store.query_bytes("SELECT 1 AS a", "Parquet").startswith(b"PAR1")


def test_threads_may_share_a_store(store: Store, table: str) -> None:
    gate = threading.Barrier(8)

    def work(number: int) -> int:
        gate.wait(30)
        store.insert_block(table, ["k", "s"], rows((number, "x")), token=f"t{number}")
        return int(store.query("SELECT {n:UInt64}", {"n": number}).rows[0][0])

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, range(8))) == list(range(8))
    assert store.query("SELECT count() FROM t").rows == [(8,)]


def test_a_cut_after_the_insert_counts_once(shim: ShimServer, engine: ChdbStore) -> None:
    engine.command(
        "CREATE TABLE cut (k UInt64) ENGINE = MergeTree ORDER BY k "
        "SETTINGS non_replicated_deduplication_window = 100"
    )
    remote = open_store(shim.url, {})
    try:
        before = shim.cut.done
        shim.cut.left = 1
        remote.insert_block("cut", ["k"], (1).to_bytes(8, "little"), token="cut")
        assert shim.cut.done == before + 1
        shim.cut.left = 20
        with pytest.raises(UnreachableError):
            remote.insert_block("cut", ["k"], (2).to_bytes(8, "little"), token="cut2")
        shim.cut.left = 0
        remote.insert_block("cut", ["k"], (2).to_bytes(8, "little"), token="cut2")
        assert engine.query("SELECT k FROM cut ORDER BY k").rows == [(1,), (2,)]
    finally:
        shim.cut.left = 0
        remote.close()
        engine.command("DROP TABLE cut")


def test_a_server_that_is_not_there() -> None:
    with pytest.raises(UnreachableError, match=r"127.0.0.1:1/.* is not reachable") as caught:
        open_store("clickhouse://me:hunter2@127.0.0.1:1/db", {})
    assert "hunter2" not in str(caught.value)


def test_a_wrong_password_is_a_matter_of_configuration(engine: ChdbStore) -> None:
    with ShimServer(engine, password="right") as server:
        host = f"127.0.0.1:{server.address[1]}"
        with pytest.raises(ConfigError, match="user or password") as caught:
            open_store(f"clickhouse://me:wrong@{host}/default", {})
        assert "wrong" not in str(caught.value)
        remote = open_store(f"clickhouse://me:right@{host}/default", {})
        assert remote.query("SELECT 1").rows == [(1,)]
        remote.close()


def test_a_closed_store_says_so(shim: ShimServer) -> None:
    remote = open_store(shim.url, {})
    remote.close()
    remote.close()
    with pytest.raises(PermanentStoreError, match="closed"):
        remote.query("SELECT 1")


def test_what_kind_of_store_it_is(engine: ChdbStore, shim: ShimServer) -> None:
    assert (engine.embedded, engine.replicated, engine.cluster) == (True, False, None)
    remote = open_store(shim.url.replace("?replicated=no", "?cluster=main"), {})
    assert (remote.embedded, remote.replicated, remote.cluster) == (False, True, "main")
    remote.close()
