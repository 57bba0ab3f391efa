"""From records of ``alerts``, ``budgets``, ``budget-status`` and ``live`` to rows of their landing.

Python makes sure that a record is what its contract says; ClickHouse reads the fields. The input
contract is docs/reference/formats.md.
"""

from __future__ import annotations

import struct
import uuid
from collections.abc import Callable, Iterable
from contextlib import suppress

import msgspec

from callmeter.errors import DataError, NewerSchemaError
from callmeter.log.position import POSITION_KEY
from callmeter.log.record import LogRecord
from callmeter.schema.alerts import ALERT_VERSION, decode_alert
from callmeter.schema.budgets import BUDGET_VERSION, decode_budget
from callmeter.schema.live import LIVE_VERSION, LiveOpen
from callmeter.schema.status import STATUS_VERSION, decode_status
from callmeter.schema.topics import ALERTS, BUDGET_STATUS, BUDGETS, LIVE
from callmeter_sinks.rows import ForeignRecordError, Metered, varint

SIGNAL_COLUMNS = ("topic", "partition", "topic_offset", "log_id", "log_ts", "key", "record")

_PLACE = struct.Struct("<Hq")
_ROW = struct.Struct("<QQq")


class _Head(msgspec.Struct):
    v: int
    log: str = ""


class _Open(msgspec.Struct):
    """The part of a project's running windows that is stored."""

    v: int
    log: str
    project: str
    at_us: int
    open: list[LiveOpen]


_head = msgspec.json.Decoder(_Head)
_open = msgspec.json.Decoder(_Open)
_encode = msgspec.json.Encoder().encode


def _alert(value: bytes) -> bytes:
    decode_alert(value)
    return value


def _budget(value: bytes) -> bytes:
    with suppress(DataError):  # an edit that is not valid defines nothing: every reader skips it
        decode_budget(value)
        return value
    return b""


def _status(value: bytes) -> bytes:
    decode_status(value)
    return value


def _live(value: bytes) -> bytes:
    return _encode(_open.decode(value))


#: By topic: the newest version that is known, and what of a value is stored.
_READ: dict[str, tuple[int, Callable[[bytes], bytes]]] = {
    ALERTS.name: (ALERT_VERSION, _alert),
    BUDGETS.name: (BUDGET_VERSION, _budget),
    BUDGET_STATUS.name: (STATUS_VERSION, _status),
    LIVE.name: (LIVE_VERSION, _live),
}


def parse_signal(record: LogRecord, log_id: str) -> Metered:
    """A record with its row; ``log_id`` is of the log it was read from, for those that name none.

    It speaks of no origin: an empty range, each record a checkpoint. Its ``value`` is the row
    behind topic, partition and offset, empty for what is not stored. ``ForeignRecordError`` if it
    is not of the contract, ``NewerSchemaError`` if a newer program wrote it.
    """
    value = record.value or b""
    stored = b""
    if record.value is not None and record.key != POSITION_KEY:
        log_id, stored = _read(record.topic, value, log_id, f"{record.partition}@{record.offset}")
    row = b""
    if stored or (record.value is None and record.topic == BUDGET_STATUS.name):
        row = _row(log_id, record.timestamp_us, record.key or b"", stored)
    return Metered(
        record.offset, log_id, record.topic, 0, -1, 1, 0, True, record.timestamp_us, row, len(value)
    )  # fmt: skip


def _read(topic: str, value: bytes, log_id: str, place: str) -> tuple[str, bytes]:
    version, stored = _READ[topic]
    try:
        head = _head.decode(value)
        if head.v > version:
            raise NewerSchemaError(
                f"{topic} {place} has format {head.v}: upgrade the sinks before the workers"
            )
        return str(uuid.UUID(head.log or log_id)), stored(value)
    except (msgspec.MsgspecError, DataError, ValueError) as exc:
        raise ForeignRecordError(f"no record of {topic}: {exc}") from exc


def _row(log_id: str, log_ts_us: int, key: bytes, stored: bytes) -> bytes:
    number = uuid.UUID(log_id).int
    head = _ROW.pack(number >> 64, number & 0xFFFF_FFFF_FFFF_FFFF, log_ts_us)
    return b"".join((head, varint(len(key)), key, varint(len(stored)), stored))


def signal_block(topic: str, partition: int, records: Iterable[Metered]) -> bytes:
    """Rows of ``landing_signals`` in RowBinary, in order. The same records give the same bytes."""
    name = topic.encode()
    prefix = varint(len(name)) + name
    out: list[bytes] = []
    for record in records:
        if record.value:
            out += (prefix, _PLACE.pack(partition, record.offset), record.value)
    return b"".join(out)
