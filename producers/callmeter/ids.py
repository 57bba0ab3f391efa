"""Ids: sources, calls, traces and spans. The same ids as OpenTelemetry's, W3C's and B3's.

A call's id is a UUIDv7 (RFC 9562, section 5.7); its span id is the low 8 bytes of it. Values travel
as text: UUIDs with dashes in lower case, trace ids as 32 and span ids as 16 hex digits.
"""

from __future__ import annotations

import os
import time
import uuid


def uuid7(now_ms: int | None = None) -> str:
    """A UUIDv7 as text: 48 bits of Unix milliseconds, then 74 random bits."""
    ms = time.time_ns() // 1_000_000 if now_ms is None else now_ms
    rand = int.from_bytes(os.urandom(10), "big")
    value = (ms & 0xFFFFFFFFFFFF) << 80 | 0x7 << 76 | (rand >> 68 & 0xFFF) << 64
    value |= 0b10 << 62 | (rand & 0x3FFFFFFFFFFFFFFF)
    return str(uuid.UUID(int=value))


def uuid8(*parts: bytes) -> str:
    """A UUIDv8 (RFC 9562, section 5.8) from content: SHA-256 over the length-prefixed parts."""
    import hashlib  # 6 ms of every program's start, for replays alone

    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    value = int.from_bytes(digest.digest()[:16], "big")
    value = value & ~(0xF << 76) | 0x8 << 76
    value = value & ~(0b11 << 62) | 0b10 << 62
    return str(uuid.UUID(int=value))


def new_trace_id() -> str:
    """32 hex digits, never all zero (W3C Trace Context, section 3.2.2.3)."""
    return uuid.uuid4().hex


def span_id(call_id: str) -> str:
    """The span id of a call: the low 8 bytes of its id as 16 hex digits."""
    return call_id[19:23] + call_id[24:]
