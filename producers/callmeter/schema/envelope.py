"""The envelope: what travels. NDJSON, header on line 0, then 1..500 events (design 4).

The same bytes go over Kafka, HTTP, the spool and a ``.jsonl`` file. A header line always begins
with ``{"v":`` and an event line with ``{"kind":``, so envelopes laid back to back split again.
This module needs orjson alone: the SDK imports it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

FORMAT_VERSION = 1
MAX_EVENTS = 500
MAX_BYTES = 256 * 1024
HEADER_PREFIX = b'{"v":'
MAX_DROP_REASONS = 64
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")


@dataclass(frozen=True, slots=True)
class Header:
    """Line 0. ``accepted`` and ``dropped`` are cumulative over the source's life so far."""

    source: str
    seq: int
    n: int
    sent_us: int
    project: str
    environment: str = ""
    service: str = ""
    sdk: str = ""
    accepted: int = 0
    dropped: Mapping[str, int] = field(default_factory=dict)
    last: bool = False
    v: int = FORMAT_VERSION


class HeaderError(ValueError):
    """Line 0 does not parse, lacks a field, or has one of a wrong type."""


def encode(header: Header, lines: Sequence[bytes]) -> bytes:
    """One envelope's bytes: header and event lines, each ended by a newline.

    ``ValueError`` if the header's ``n`` is not the number of lines; limits are the caller's
    business because only the caller can cut.
    """
    if header.n != len(lines):
        raise ValueError(f"header says {header.n} events, {len(lines)} lines given")
    head: dict[str, Any] = {
        "v": header.v,
        "source": header.source,
        "seq": header.seq,
        "n": header.n,
        "sent_us": header.sent_us,
        "project": header.project,
        "environment": header.environment,
        "service": header.service,
        "sdk": header.sdk,
        "accepted": header.accepted,
        # A reason may be a member of ``DropReason``, which orjson takes for no text.
        "dropped": {str(reason): count for reason, count in header.dropped.items()},
    }
    if header.last:
        head["last"] = True
    return b"\n".join((orjson.dumps(head), *lines, b""))


def decode_header(line: bytes) -> Header:
    """Parse line 0; ``HeaderError`` names the field that is missing or wrong."""
    try:
        raw = orjson.loads(line)
    except orjson.JSONDecodeError as exc:
        raise HeaderError(f"header is not JSON: {exc}") from exc
    if not isinstance(raw, dict):
        raise HeaderError("header is not an object")
    dropped = raw.get("dropped", {})
    if not isinstance(dropped, dict) or not _are_drops(dropped):
        raise HeaderError("header field 'dropped' is not a map of reasons to counts")
    last = raw.get("last", False)
    if not isinstance(last, bool):
        raise HeaderError("header field 'last' is not a boolean")
    source = _text(raw, "source", required=True)
    if not is_uuid(source):
        raise HeaderError("header field 'source' is not a lower-case UUID")
    return Header(
        v=_count(raw, "v", required=True),
        source=source,
        seq=_count(raw, "seq", required=True),
        n=_count(raw, "n", required=True),
        sent_us=_count(raw, "sent_us", required=True),
        project=_text(raw, "project", required=True),
        environment=_text(raw, "environment"),
        service=_text(raw, "service"),
        sdk=_text(raw, "sdk"),
        accepted=_count(raw, "accepted"),
        dropped=dropped,
        last=last,
    )


def is_uuid(text: str) -> bool:
    """Whether a text is a UUID as it travels: lower-case, with dashes."""
    return _UUID.match(text) is not None


def split_lines(payload: bytes) -> list[bytes]:
    """An envelope's lines, header first, without the final newline's empty tail."""
    lines = payload.split(b"\n")
    if lines and not lines[-1]:
        lines.pop()
    return lines


def split_envelopes(body: bytes) -> Iterator[bytes]:
    """Envelopes laid back to back, each as the exact bytes it was sent as.

    A line that begins with ``{"v":`` begins the next envelope. Raises ``HeaderError`` if the body
    does not begin with a header.
    """
    if not body.startswith(HEADER_PREFIX):
        raise HeaderError('the body does not begin with a header line ({"v":…)')
    start = 0
    while start < len(body):
        nxt = body.find(b"\n" + HEADER_PREFIX, start)
        end = len(body) if nxt < 0 else nxt + 1
        yield body[start:end]
        start = end


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _count(raw: dict[str, Any], name: str, *, required: bool = False) -> int:
    if name not in raw:
        if required:
            raise HeaderError(f"header lacks {name!r}")
        return 0
    value = raw[name]
    if not _is_count(value):
        raise HeaderError(f"header field {name!r} is not a count")
    return int(value)


def _text(raw: dict[str, Any], name: str, *, required: bool = False) -> str:
    value = raw.get(name, "")
    if not isinstance(value, str) or len(value) > 256:
        raise HeaderError(f"header field {name!r} is not text of at most 256 characters")
    if required and not value:
        raise HeaderError(f"header lacks {name!r}")
    return value


def _are_drops(dropped: dict[str, Any]) -> bool:
    """Few and short reasons: the header goes on in records that have a size limit."""
    return len(dropped) <= MAX_DROP_REASONS and all(
        len(reason) <= 64 and _is_count(count) for reason, count in dropped.items()
    )
