"""A store in memory with the one property that matters, a token counts once; and faults by step."""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import orjson

from callmeter.errors import UnreachableError
from callmeter.log.record import LogRecord
from callmeter_sinks.clickhouse.store import PermanentStoreError, Result


class Crash(BaseException):
    """kill -9: nothing in the program may catch it."""


#: What a fault does around the store's own work: (before, after).
Fault = Callable[["FakeStore", Callable[[], Any]], Any]


def crash_before(store: FakeStore, work: Callable[[], Any]) -> Any:
    raise Crash


def crash_after(store: FakeStore, work: Callable[[], Any]) -> Any:
    work()
    raise Crash


def refuse_connection(store: FakeStore, work: Callable[[], Any]) -> Any:
    raise UnreachableError("connection refused")


def cut_answer(store: FakeStore, work: Callable[[], Any]) -> Any:
    work()
    raise UnreachableError("the answer was cut off")


class FakeStore:
    """Books and landing rows in lists. ``faults`` maps the number of a call to a fault, once."""

    replicated = False
    embedded = True
    cluster = None
    sharding = None
    name = "fake"

    def __init__(self) -> None:
        self.tables: dict[str, list[dict[str, Any]]] = {}
        self.landed: list[tuple[int, int, bytes]] = []  # (partition, offset, header)
        self.tokens: dict[str, bytes] = {}
        self.calls = 0
        self.log: list[str] = []
        self.faults: dict[int, Fault] = {}

    def _call(self, what: str, work: Callable[[], Any]) -> Any:
        self.calls += 1
        self.log.append(what)
        fault = self.faults.pop(self.calls, None)
        return work() if fault is None else fault(self, work)

    def insert_block(
        self,
        table: str,
        columns: Sequence[str],
        block: bytes,
        *,
        fmt: str = "RowBinary",
        token: str | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self._call(f"insert {table}", lambda: self._insert(table, block, token))

    def _insert(self, table: str, block: bytes, token: str | None) -> None:
        if table != "landing":
            self.tables.setdefault(table, []).append(orjson.loads(block))
            return
        assert token is not None
        if token in self.tokens:
            assert self.tokens[token] == block, f"{token} came with other bytes"
            return
        self.tokens[token] = block
        self.landed += list(_rows(block))

    def query(
        self,
        sql: str,
        params: Mapping[str, Any] | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> Result:
        table = sql.split("FROM ")[1].split(maxsplit=1)[0]
        return self._call(f"select {table}", lambda: self._select(table, params or {}))

    def _select(self, table: str, params: Mapping[str, Any]) -> Result:
        rows = [
            row
            for row in self.tables.get(table, [])
            if all(row[name] == value for name, value in params.items())
        ]
        if table == "sink_claims":
            rows.sort(key=lambda r: (r["generation"], r["owner"]), reverse=True)
            return Result((), [(r["generation"], r["owner"]) for r in rows[:1]])
        if table == "sink_intents":
            names = ("first", "last", "origin_first", "origin_next", "records", "crc32")
            rows.sort(key=lambda r: (r["generation"], r["owner"], r["last"]), reverse=True)
            return Result((), [tuple(r[n] for n in names) for r in rows[:1]])
        if table == "sink_quarantine":
            return Result((), [(r["offset"],) for r in rows])
        raise PermanentStoreError(60, f"no such table here: {table}")

    def command(
        self,
        sql: str,
        params: Mapping[str, Any] | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        raise PermanentStoreError(62, f"not here: {sql}")

    def query_bytes(
        self,
        sql: str,
        fmt: str,
        params: Mapping[str, Any] | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> bytes:
        raise PermanentStoreError(62, f"not here: {sql}")

    def close(self) -> None:
        """Nothing to let go of."""


class FakeSource:
    """Metered records in lists, with holes where offsets jump. Never blocks."""

    shared = False
    topic = "metered"

    def __init__(self, log_id: str, partitions: int = 1) -> None:
        self.log_id = log_id
        self.records: list[list[LogRecord]] = [[] for _ in range(partitions)]
        self.waits = 0

    def append(self, partition: int, values: Sequence[bytes], *, skip: int = 0) -> None:
        """Add records; ``skip`` leaves offsets free, as a transaction's marker does."""
        records = self.records[partition]
        offset = (records[-1].offset + 1 if records else 0) + skip
        for number, value in enumerate(values):
            records.append(LogRecord("metered", partition, offset + number, 0, b"s", value))

    def assignment(self) -> Mapping[int, int]:
        return dict.fromkeys(range(len(self.records)), 1)

    def read(
        self, partition: int, offset: int, *, max_records: int, max_bytes: int
    ) -> list[LogRecord]:
        return [r for r in self.records[partition] if r.offset >= offset][:max_records]

    def begun(self, partitions: Collection[int]) -> Collection[int]:
        return [partition for partition in partitions if self.records[partition]]

    def first_offset(self, partition: int) -> int:
        return self.records[partition][0].offset if self.records[partition] else 0

    def end_offset(self, partition: int) -> int:
        return self.records[partition][-1].offset + 1 if self.records[partition] else 0

    def reached(self, partition: int, offset: int, end: int) -> bool:
        return offset >= end

    def wait(self, positions: Mapping[int, int], timeout_s: float) -> None:
        self.waits += 1

    def wake(self) -> None:
        """Nobody waits here."""

    def report(self, positions: Mapping[int, int]) -> None:
        """Nobody looks here."""

    def close(self) -> None:
        """Nothing to let go of."""


def _rows(block: bytes) -> Iterator[tuple[int, int, bytes]]:
    at = 0
    while at < len(block):
        _, at = _text(block, at)
        partition, offset = struct.unpack_from("<Hq", block, at)
        _, at = _text(block, at + 10)
        header, at = _text(block, at)
        _, at = _text(block, at)
        yield partition, offset, header


def _text(block: bytes, at: int) -> tuple[bytes, int]:
    length = shift = 0
    while True:
        byte = block[at]
        at += 1
        length |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return block[at : at + length], at + length
