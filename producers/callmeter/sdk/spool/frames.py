"""One envelope on disk: a frame with its length and checksum.

    "cm1", newline | length u32 | crc32 u32 | seq u64 | events u16 | envelope as it travels

Little-endian. The checksum covers seq, events and envelope. A frame that was torn by a crash or
rotted fails it; reading goes on at the next mark.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

MARK = b"cm1\n"
_HEAD = struct.Struct("<4sIIQH")
_COVERED = struct.Struct("<QH")
HEAD_BYTES = _HEAD.size


@dataclass(frozen=True, slots=True)
class Frame:
    """Where an intact frame lies in its segment; ``size`` with its head."""

    offset: int
    size: int
    seq: int
    events: int


def pack(seq: int, events: int, data: bytes) -> bytes:
    """The frame of an envelope."""
    crc = zlib.crc32(data, zlib.crc32(_COVERED.pack(seq, events)))
    return _HEAD.pack(MARK, len(data), crc, seq, events) + data


def payload(frame: bytes) -> bytes | None:
    """The envelope in a frame; None if it is torn or rotten."""
    if len(frame) < HEAD_BYTES:
        return None
    mark, length, crc, seq, events = _HEAD.unpack_from(frame)
    data = frame[HEAD_BYTES:]
    if mark != MARK or len(data) != length:
        return None
    return data if zlib.crc32(data, zlib.crc32(_COVERED.pack(seq, events))) == crc else None


def scan(content: bytes) -> Iterator[Frame | None]:
    """The frames of a segment in order; None for each stretch that is torn or rotten."""
    at = 0
    while at < len(content):
        found = _frame_at(content, at)
        if found is not None:
            yield found
            at += found.size
            continue
        yield None
        at = content.find(MARK, at + 1)
        while at >= 0 and _frame_at(content, at) is None:
            at = content.find(MARK, at + 1)
        if at < 0:
            return


def _frame_at(content: bytes, at: int) -> Frame | None:
    if len(content) - at < HEAD_BYTES:
        return None
    _, length, _, seq, events = _HEAD.unpack_from(content, at)
    end = at + HEAD_BYTES + length
    if end > len(content) or payload(content[at:end]) is None:
        return None
    return Frame(at, end - at, seq, events)
