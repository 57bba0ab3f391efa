"""Ids are the ones of RFC 9562, W3C Trace Context and OpenTelemetry."""

from __future__ import annotations

import uuid

from callmeter.ids import new_trace_id, span_id, uuid7, uuid8


def test_uuid7_has_version_variant_and_the_time() -> None:
    made = uuid.UUID(uuid7(1_700_000_000_123))
    assert made.version == 7
    assert made.variant == uuid.RFC_4122
    assert made.int >> 80 == 1_700_000_000_123


def test_uuid7_is_different_each_time_and_in_the_order_of_time() -> None:
    assert len({uuid7(5) for _ in range(10_000)}) == 10_000
    assert uuid7(1_000) < uuid7(2_000)


def test_uuid8_is_of_the_content_alone() -> None:
    made = uuid.UUID(uuid8(b"a", b"bc"))
    assert made.version == 8
    assert made.variant == uuid.RFC_4122
    assert uuid8(b"a", b"bc") == str(made)
    assert uuid8(b"ab", b"c") != str(made), "the parts' borders count"


def test_a_span_id_is_the_low_eight_bytes() -> None:
    call_id = "01890a5d-ac96-774b-bcce-b302099a8057"
    assert span_id(call_id) == "bcceb302099a8057"
    assert int(span_id(call_id), 16) == uuid.UUID(call_id).int & (2**64 - 1)


def test_trace_ids_are_32_hex_digits() -> None:
    trace = new_trace_id()
    assert len(bytes.fromhex(trace)) == 16
    assert int(trace, 16) != 0
