"""Records of alerts, budgets, statuses and live as the sink reads them."""

from __future__ import annotations

import struct
import uuid

import msgspec
import orjson
import pytest

from callmeter.errors import NewerSchemaError
from callmeter.log.record import LogRecord
from callmeter.schema.alerts import Alert, encode_alert
from callmeter_sinks.rows import ForeignRecordError
from callmeter_sinks.signals import parse_signal, signal_block
from callmeter_sinks.streams import SIGNALS, STREAMS

HERE = "0198a1b2-0000-4000-8000-000000000001"
THERE = "0198a1b2-0000-4000-8000-000000000002"
STATUS = {
    "v": 1, "log": THERE, "budget": "team", "version": 1, "basis": 1, "entity": "a|b",
    "window": "day", "state": "ok", "action": "stop", "start_us": 0, "end_us": 0,
    "spend_pico": "1", "tokens": 0, "calls": 0, "at_us": 1, "included": {},
}  # fmt: skip


def record(topic: str, value: object, key: bytes = b"k", offset: int = 7) -> LogRecord:
    raw = value if value is None or isinstance(value, bytes) else orjson.dumps(value)
    return LogRecord(topic, 3, offset, 1_000_001, key, raw)


def alert(**more: object) -> bytes:
    return encode_alert(
        Alert(
            v=1, id="a" * 32, kind="gap", rule="gap", severity="info", at_us=5, message="é",
            log=THERE, **more,  # type: ignore[arg-type]
        )
    )  # fmt: skip


def test_an_alert_lands_as_it_stands_under_the_log_it_names() -> None:
    value = alert()
    read = parse_signal(record("alerts", value), HERE)
    assert (read.offset, read.log_id, read.ends_checkpoint, read.body_at) == (
        7,
        THERE,
        True,
        len(value),
    )
    block = signal_block("alerts", 3, [read])
    log = uuid.UUID(THERE).int
    assert block == b"".join(
        (
            b"\x06alerts",
            struct.pack("<Hq", 3, 7),
            struct.pack("<QQ", log >> 64, log & (2**64 - 1)),
            struct.pack("<q", 1_000_001),
            b"\x01k",
            bytes([len(value)])
            if len(value) < 128
            else bytes([len(value) & 0x7F | 0x80, len(value) >> 7]),
            value,
        )
    )


def test_a_forgotten_entity_leaves_a_row_without_a_record() -> None:
    read = parse_signal(record("budget-status", None, b"team|a|b"), HERE)
    assert read.log_id == HERE
    assert signal_block("budget-status", 3, [read]).endswith(b"\x08team|a|b\x00")


@pytest.mark.parametrize(
    ("topic", "value", "key"),
    [
        ("budgets", {"v": 1, "log": HERE, "next": 3}, b"position"),  # the count of edits
        (
            "budgets",
            {"v": 1, "id": "team"},
            b"team",
        ),  # no limit: not valid, so every reader skips it
        ("live", None, b"shop"),
        ("alerts", None, b"team"),
    ],
)
def test_what_says_nothing_takes_an_offset_and_no_row(
    topic: str, value: object, key: bytes
) -> None:
    read = parse_signal(record(topic, value, key), HERE)
    assert signal_block(topic, 3, [read]) == b""


def test_of_the_running_windows_only_open_calls_are_stored() -> None:
    said = {
        "v": 1, "log": HERE, "project": "shop", "at_us": 5, "windows": [{"window": "minute"}],
        "open": [{"provider": "p", "model": "m", "open": 2}],
    }  # fmt: skip
    block = signal_block("live", 0, [parse_signal(record("live", said), HERE)])
    kept = {name: value for name, value in said.items() if name != "windows"}
    assert block.endswith(msgspec.json.encode(kept))


@pytest.mark.parametrize(
    ("topic", "value"),
    [
        (topic, value)
        for topic in SIGNALS
        for value in (b"", b"nonsense", b"[]", b'{"v":1}', b'{"v":"1"}', b"\xff")
        # An object of version 1 is a definition, if not a valid one.
        if (topic, value) != ("budgets", b'{"v":1}')
    ],
)
def test_what_nobody_of_us_wrote_is_foreign(topic: str, value: bytes) -> None:
    with pytest.raises(ForeignRecordError, match=f"no record of {topic}"):
        parse_signal(record(topic, value), HERE)


@pytest.mark.parametrize("log", ["here", "0198", ""])
def test_a_log_that_is_no_uuid_is_foreign_or_the_own_one(log: str) -> None:
    value = orjson.dumps(STATUS | {"log": log})
    if log:
        with pytest.raises(ForeignRecordError):
            parse_signal(record("budget-status", value), HERE)
    else:
        assert parse_signal(record("budget-status", value), HERE).log_id == HERE


@pytest.mark.parametrize("topic", SIGNALS)
def test_a_newer_format_stops_the_sink(topic: str) -> None:
    with pytest.raises(NewerSchemaError, match="upgrade the sinks before the workers"):
        parse_signal(record(topic, {"v": 2, "log": HERE}), HERE)


def test_the_streams_are_what_the_registry_says() -> None:
    assert [name for name, stream in STREAMS.items() if not stream.quiet] == ["metered"]
    assert {name for name, stream in STREAMS.items() if stream.compacted} == {
        "budgets", "budget-status", "live",
    }  # fmt: skip
