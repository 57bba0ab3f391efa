"""From metered records to rows of the landing table. Python reads the header, ClickHouse the rest.

The input contract is docs/reference/formats.md, "Metered records".
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from callmeter.errors import NewerSchemaError
from callmeter.log.record import LogRecord
from callmeter.schema.metered import METERED_VERSION, MeteredHeader, read_header

LANDING_COLUMNS = ("topic", "partition", "metered_offset", "type", "header", "body")

_TYPES = {"envelope": b"\x08envelope", "deltas": b"\x06deltas"}
_PLACE = struct.Struct("<Hq")


class _Version(msgspec.Struct):
    v: int


_version = msgspec.json.Decoder(_Version)


class Metered(NamedTuple):
    """One record, as far as the sink looks into it; of ``metered`` unless it came from ``signals``.

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
    try:
        version = _version.decode(value[: value.index(b"\n")]).v
        if version > METERED_VERSION:
            raise NewerSchemaError(
                f"metered {record.partition}@{record.offset} has format {version}: "
                "upgrade the sinks before the workers"
            )
        header = read_header(value)
    except msgspec.MsgspecError as exc:
        raise ForeignRecordError(f"no header of the contract: {exc}") from exc
    if header.v != METERED_VERSION or header.partition != record.partition:
        raise ForeignRecordError("another format, or another partition's")
    if isinstance(header, MeteredHeader):
        first, last, part, ends = header.offset, header.offset, 0, False
        events = header.events + header.refused
    else:
        first, last, part, events = header.first, header.last, header.part, 0
        ends = header.part == header.parts - 1
    return Metered(
        record.offset, header.log, header.type, first, last, events, part, ends,
        header.log_ts_us, value, value.index(b"\n") + 1,
    )  # fmt: skip


def landing_block(topic: str, partition: int, records: Iterable[Metered]) -> bytes:
    """The landing table's rows in RowBinary, in order. The same records give the same bytes.

    RowBinary: integers little-endian, strings behind their length as a LEB128 varint
    (ClickHouse, "Formats", RowBinary).
    """
    name = topic.encode()
    prefix = varint(len(name)) + name
    out: list[bytes | memoryview] = []
    for record in records:
        value, at = memoryview(record.value), record.body_at
        out += (
            prefix,
            _PLACE.pack(partition, record.offset),
            _TYPES[record.type],
            varint(at - 1),
            value[: at - 1],
            varint(len(value) - at),
            value[at:],
        )
    return b"".join(out)


def varint(number: int) -> bytes:
    """A length as LEB128, as RowBinary has it."""
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
