"""Origins follow one another, or the break is named."""

from __future__ import annotations

import pytest

from callmeter.log.record import LogRecord
from callmeter_sinks.faults import OriginBreakError
from callmeter_sinks.origins import OriginSequence
from callmeter_sinks.rows import Metered, parse
from support.metered import MeteredStream


def metered(stream: MeteredStream, **shape: int) -> list[Metered]:
    return [
        parse(LogRecord("metered", 0, offset, 0, None, value))
        for offset, value in enumerate(stream.checkpoint(**shape))
    ]


def test_follows_checkpoints_of_any_shape() -> None:
    stream = MeteredStream("log", 0)
    sequence = OriginSequence(0)
    for shape in ({"envelopes": 3, "parts": 1}, {"envelopes": 1, "parts": 4}):
        for record in metered(stream, **shape):
            sequence.check(record)
    assert (sequence.next, sequence.began) == (4, 4)


def test_a_missing_envelope_is_a_break_and_does_not_advance() -> None:
    records = metered(MeteredStream("log", 0), envelopes=4)
    sequence = OriginSequence(0)
    sequence.check(records[0])
    with pytest.raises(OriginBreakError) as broken:
        sequence.check(records[3])
    assert (broken.value.expected, broken.value.found) == (1, 3)
    assert "origins 1 to 2 are missing" in str(broken.value)
    sequence.check(records[1])
    assert sequence.next == 2


@pytest.mark.parametrize("left_out", [0, 1, 2])
def test_missing_deltas_are_a_break(left_out: int) -> None:
    stream = MeteredStream("log", 0)
    first, second = metered(stream, envelopes=1, parts=3), metered(stream, envelopes=1)
    del first[1 + left_out]
    sequence = OriginSequence(0, 0, 0)
    with pytest.raises(OriginBreakError):  # noqa: PT012 - which of them breaks depends on the part
        for record in first + second:
            sequence.check(record)


def test_deltas_must_speak_of_the_envelopes_before_them() -> None:
    stream = MeteredStream("log", 0)
    records = metered(stream, envelopes=3)
    sequence = OriginSequence(0, 0, 0)
    for record in records[:2]:
        sequence.check(record)
    with pytest.raises(OriginBreakError):
        sequence.check(records[3])


def test_goes_on_behind_a_hole_that_was_accepted() -> None:
    stream = MeteredStream("log", 0)
    metered(stream, envelopes=2)
    records = metered(stream, envelopes=3)
    sequence = OriginSequence(0, 0, 0)
    sequence.resume_at(records[0])
    for record in records[1:]:
        sequence.check(record)
    assert (sequence.next, sequence.began) == (5, 5)
