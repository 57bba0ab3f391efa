"""Headers read, rows built."""

from __future__ import annotations

import struct

import pytest

from callmeter.errors import NewerSchemaError
from callmeter.log.record import LogRecord
from callmeter_sinks.rows import ForeignRecordError, landing_block, parse
from support.metered import MeteredStream

LOG = "0198a1b2-0000-4000-8000-000000000001"


def record(value: bytes | None, offset: int = 7, partition: int = 3) -> LogRecord:
    return LogRecord("metered", partition, offset, 0, b"s", value)


def test_an_envelopes_header_tells_origin_and_events() -> None:
    stream = MeteredStream(LOG, 3, plain=True)
    envelope, deltas = stream.checkpoint(envelopes=1, events=5)
    read = parse(record(envelope))
    assert (read.type, read.first, read.last, read.events) == ("envelope", 0, 0, 5)
    assert (read.log_id, read.offset, read.ends_checkpoint) == (LOG, 7, False)
    read = parse(record(deltas))
    assert (read.type, read.first, read.last, read.events) == ("deltas", 0, 0, 0)
    assert read.ends_checkpoint


def test_only_the_last_part_ends_a_checkpoint() -> None:
    records = MeteredStream(LOG, 3).checkpoint(envelopes=2, parts=3)
    assert [parse(record(v)).ends_checkpoint for v in records[2:]] == [False, False, True]


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"no newline",
        b"\n",
        b"[1]\n",
        b"{}\n",
        b'{"v":1}\n',
        b'{"v":1,"type":"envelope","partition":3,"log":"x","log_ts_us":1}\n',
        b'{"v":1,"type":"other","partition":3,"log":"x","log_ts_us":1}\n',
        b'{"v":1,"type":"deltas","partition":4,"log":"x","log_ts_us":1,"first":0,"last":0}\n',
        b'{"v":"1","type":"deltas","partition":3}\n',
    ],
)
def test_what_no_meter_wrote_is_foreign(value: bytes | None) -> None:
    with pytest.raises(ForeignRecordError):
        parse(record(value))


def test_a_newer_format_is_not_guessed_at() -> None:
    with pytest.raises(NewerSchemaError, match="upgrade the sinks before the workers"):
        parse(record(b'{"v":2,"type":"envelope","partition":3}\n'))


def test_the_block_is_rowbinary_of_header_and_lines() -> None:
    stream = MeteredStream(LOG, 3)
    values = stream.checkpoint(envelopes=2, events=30)
    read = [parse(record(value, offset)) for offset, value in enumerate(values)]
    block = landing_block("metered", 3, read)
    rows = list(unpack(block))
    assert [row[2] for row in rows] == [0, 1, 2]
    for (topic, partition, _, kind, header, body), value in zip(rows, values, strict=True):
        assert (topic, partition) == (b"metered", 3)
        assert header + b"\n" + body == value
        assert b'"type":"%s"' % kind in header
    assert landing_block("metered", 3, []) == b""


def unpack(block: bytes):
    at = 0

    def text() -> bytes:
        nonlocal at
        length = shift = 0
        while True:
            byte = block[at]
            at += 1
            length |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        at += length
        return block[at - length : at]

    while at < len(block):
        topic = text()
        partition, offset = struct.unpack_from("<Hq", block, at)
        at += 10
        yield topic, partition, offset, text(), text(), text()
