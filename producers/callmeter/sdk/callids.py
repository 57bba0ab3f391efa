"""A call's ids from what its thread noted: when it began, and 62 random bits.

The id is a UUIDv7 whose 12 bits after the version are the fraction of the millisecond (RFC 9562,
section 6.2, method 3), so ids sort by time; its low 8 bytes are the span id. The trace that begins
with a call is called by the same 32 digits.
"""

from __future__ import annotations

VARIANT = 1 << 63
_VERSION = 7 << 12


def digits_of(started_ns: int, span: int) -> str:
    """32 hex digits: the call's id without dashes, and its trace's id if it is the root."""
    first, second = halves_of(started_ns, span)
    return first + second


def halves_of(started_ns: int, span: int) -> tuple[str, str]:
    """Twice 16 of these digits."""
    ms, rest = divmod(started_ns, 1_000_000)
    high = ms << 16 | _VERSION | rest * 4096 // 1_000_000
    # bytes.hex() is a third of a format specification's time.
    return high.to_bytes(8, "big").hex(), (VARIANT | span).to_bytes(8, "big").hex()


def span_of(span: int) -> str:
    """16 hex digits: the call's span id."""
    return (VARIANT | span).to_bytes(8, "big").hex()


def uuid_of(digits: str) -> str:
    """The digits with the dashes of a UUID."""
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
