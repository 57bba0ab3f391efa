"""From metered records to rows of the landing table. Python reads the header, ClickHouse the rest.

The input contract is docs/reference/formats.md, "Metered records".
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Any, NamedTuple

import orjson

from callmeter.errors import NewerSchemaError
from callmeter.log.record import LogRecord

FORMAT_VERSION = 1
LANDING_COLUMNS = ("topic", "partition", "metered_offset", "type", "header", "body")

_TYPES = {"envelope": b"\x08envelope", "deltas": b"\x06deltas"}
_PLACE = struct.Struct("<Hq")


class Metered(NamedTuple):
    """One record of the topic ``metered``, as far as the sink looks into it.

    ``first`` and ``last`` are the origins it speaks of (the same for an envelope), ``events`` its
    accepted and refused lines, ``body_at`` where the lines begin in ``value``.
    """

    offset: int
    log_id: str
    type: str
    first: int
    last: int
    events: int
    part: int
    ends_checkpoint: bool
    log_ts_us: int
    value: bytes
    body_at: int


class ForeignRecordError(ValueError):
    """A record that no meter wrote: it has no header of the contract."""


def parse(record: LogRecord) -> Metered:
    """Read a record's header.

    Raises ``ForeignRecordError`` if it is not one of the contract, ``NewerSchemaError`` if a newer
    meter wrote it.
    """
    value = record.value
    if value is None or not value.endswith(b"\n"):
        raise ForeignRecordError("no value that ends with a newline")
    body_at = value.index(b"\n") + 1
    try:
        header: Any = orjson.loads(value[:body_at])
        version = header["v"]
        kind = header["type"]
        if version != FORMAT_VERSION and isinstance(version, int) and version > FORMAT_VERSION:
            raise NewerSchemaError(
                f"metered {record.partition}@{record.offset} has format {version}: "
                "upgrade the sinks before the workers"
            )
        if version != FORMAT_VERSION or header["partition"] != record.partition:
            raise ForeignRecordError("another format, or another partition's")
        log_id, log_ts_us = str(header["log"]), int(header["log_ts_us"])
        if kind == "envelope":
            origin = int(header["offset"])
            events = int(header["events"]) + int(header["refused"])
            return Metered(
                record.offset, log_id, kind, origin, origin, events, 0, False, log_ts_us,
                value, body_at,
            )  # fmt: skip
        if kind == "deltas":
            first, last, part = int(header["first"]), int(header["last"]), int(header["part"])
            ends = part == int(header["parts"]) - 1
            return Metered(
                record.offset, log_id, kind, first, last, 0, part, ends, log_ts_us, value, body_at
            )
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as exc:
        raise ForeignRecordError(f"no header of the contract: {exc!r}") from exc
    raise ForeignRecordError(f"unknown type {kind!r}")


def landing_block(topic: str, partition: int, records: Iterable[Metered]) -> bytes:
    """The landing table's rows in RowBinary, in order. The same records give the same bytes.

    RowBinary: integers little-endian, strings behind their length as a LEB128 varint
    (ClickHouse, "Formats", RowBinary).
    """
    name = topic.encode()
    prefix = _varint(len(name)) + name
    out: list[bytes | memoryview] = []
    for record in records:
        value, at = memoryview(record.value), record.body_at
        out += (
            prefix,
            _PLACE.pack(partition, record.offset),
            _TYPES[record.type],
            _varint(at - 1),
            value[: at - 1],
            _varint(len(value) - at),
            value[at:],
        )
    return b"".join(out)


def _varint(number: int) -> bytes:
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
