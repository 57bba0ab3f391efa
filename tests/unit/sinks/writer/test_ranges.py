"""Ranges are cut at checkpoints; memory is bounded."""

from __future__ import annotations

import pytest

from callmeter.log.record import LogRecord
from callmeter_sinks.ranges import Piece, Range, RangeBuffer, RangeLimits
from callmeter_sinks.rows import parse
from support.metered import MeteredStream

LIMITS = RangeLimits(max_events=20, linger_s=1.0, max_bytes=10**9)


def pieces_of(values: list[bytes], start: int = 0) -> list[Piece]:
    return [
        Piece(offset, value, parse(LogRecord("metered", 0, offset, 0, None, value)))
        for offset, value in enumerate(values, start)
    ]


def filled(buffer: RangeBuffer, pieces: list[Piece], now_s: float = 0.0) -> RangeBuffer:
    for piece in pieces:
        buffer.add(piece, now_s)
    return buffer


def test_is_due_only_with_a_whole_checkpoint_and_soon_after_a_silence() -> None:
    buffer = RangeBuffer(LIMITS)
    values = MeteredStream("log", 0, plain=True).checkpoint(envelopes=2, events=3)
    assert filled(buffer, pieces_of(values[:2]), 5.0).due_in_s(99.0) is None
    filled(buffer, pieces_of(values[2:], 2), 5.0)
    assert buffer.due_in_s(5.0) == pytest.approx(LIMITS.prompt_s)
    assert buffer.due_in_s(6.0) == 0.0
    assert not buffer.full()


def test_a_busy_partition_keeps_the_pace_of_the_linger() -> None:
    stream = MeteredStream("log", 0, plain=True)
    buffer = filled(RangeBuffer(LIMITS), pieces_of(stream.checkpoint(envelopes=2)), 5.0)
    assert buffer.take(5.25)
    filled(buffer, pieces_of(stream.checkpoint(envelopes=2), 3), 5.5)
    assert buffer.due_in_s(5.5) == 0.75  # a linger after the range before
    assert buffer.take(6.25)
    assert not buffer.take(6.5)  # nothing was taken: the pace is that of the last range
    filled(buffer, pieces_of(stream.checkpoint(envelopes=2), 6), 7.5)
    assert buffer.due_in_s(7.5) == pytest.approx(LIMITS.prompt_s)


def test_without_a_linger_nothing_waits() -> None:
    limits = RangeLimits(linger_s=0.0)
    values = MeteredStream("log", 0, plain=True).checkpoint(envelopes=2)
    assert filled(RangeBuffer(limits), pieces_of(values), 5.0).due_in_s(5.0) == 0.0


def test_is_full_at_enough_events_but_not_inside_a_checkpoint() -> None:
    buffer = RangeBuffer(LIMITS)
    values = MeteredStream("log", 0, plain=True).checkpoint(envelopes=5, events=10)
    filled(buffer, pieces_of(values[:-1]))
    assert not buffer.full()
    filled(buffer, pieces_of(values[-1:], 5))
    assert buffer.full()
    assert buffer.due_in_s(0.0) == 0.0


def test_takes_whole_checkpoints_and_leaves_the_begun_one() -> None:
    stream = MeteredStream("log", 0, plain=True)
    values = [*stream.checkpoint(envelopes=2), *stream.checkpoint(envelopes=3)]
    buffer = filled(RangeBuffer(LIMITS), pieces_of(values[:-1]))
    assert [p.offset for p in buffer.take(0.0)] == [0, 1, 2]
    assert len(buffer) == 3
    assert buffer.due_in_s(9.0) is None
    filled(buffer, pieces_of(values[-1:], 6))
    assert [p.offset for p in buffer.take(0.0)] == [3, 4, 5, 6]
    assert buffer.bytes == 0


def test_a_checkpoint_over_the_bound_is_cut_inside() -> None:
    values = MeteredStream("log", 0, plain=True).checkpoint(envelopes=6, events=10)
    limits = RangeLimits(max_bytes=sum(map(len, values[:3])))
    buffer = RangeBuffer(limits)
    for piece in pieces_of(values):
        if buffer.full():
            break
        buffer.add(piece, 0.0)
    assert [p.offset for p in buffer.take(0.0)] == [0, 1, 2]


def test_the_digest_knows_headers_sizes_and_order() -> None:
    pieces = pieces_of(MeteredStream("log", 0, plain=True).checkpoint(envelopes=3))
    whole = Range("log", pieces, 0, 3).crc32()
    assert Range("log", pieces[::-1], 0, 3).crc32() != whole
    for changed in (
        pieces[0]._replace(value=pieces[0].value + b"\n"),
        pieces[0]._replace(value=pieces[0].value.replace(b'"seq":0', b'"seq":1')),
        pieces[0]._replace(offset=7),
    ):
        assert Range("log", [changed, *pieces[1:]], 0, 3).crc32() != whole
    assert Range("log", pieces, 0, 3).records(without={1}) == [
        p.metered for p in pieces if p.offset != 1
    ]
