"""The judge of envelopes: reads the header and says whether the envelope as a whole may pass.

Nothing here raises on a producer's bytes. A header that does not parse is read field by field as
far as it goes, so that its dead letter says where it came from and its seq is no gap.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec
import orjson

from callmeter.schema.envelope import FORMAT_VERSION, HeaderError, decode_header, is_uuid
from callmeter.schema.header import EnvelopeHeader
from callmeter.schema.metered import NIL_SOURCE
from callmeter.schema.reasons import RefusedReason
from callmeter_processors.limits import MeterLimits

MAX_DETAIL = 300


class Refusal(NamedTuple):
    """Why a line or an envelope was refused; ``detail`` is for people and names the field."""

    reason: RefusedReason
    detail: str


class Opened(NamedTuple):
    """An envelope's header. ``identified``: its source and seq can be relied upon."""

    header: EnvelopeHeader
    identified: bool
    refusal: Refusal | None


def open_envelope(value: bytes, key: bytes | None) -> Opened:
    """Read line 0. The refusal, if any, is ``bad_header``.

    The record's key must be the source: it decides the partition, and a copy in another partition
    would be counted there once more.
    """
    end = value.find(b"\n")
    head = value if end < 0 else value[:end]
    try:
        header = _decoder.decode(head)
        if not is_uuid(header.source):
            return _bad_header(head, key)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _bad_header(head, key)
    return _keyed(header, key)


def _bad_header(head: bytes, key: bytes | None) -> Opened:
    """What ``decode_header`` says of a header that the fast path did not take."""
    try:
        found = decode_header(head)
    except HeaderError as exc:
        header, identified = _salvage(head)
        detail = str(exc) if head else "the record is empty"
        refusal = Refusal(RefusedReason.BAD_HEADER, detail[:MAX_DETAIL])
        return Opened(header, identified and key == header.source.encode(), refusal)
    # Readable, if over a limit or of another version: for judge_envelope to say.
    return _keyed(EnvelopeHeader(**{name: getattr(found, name) for name in _FIELDS}), key)


def _keyed(header: EnvelopeHeader, key: bytes | None) -> Opened:
    if key == header.source.encode():
        return Opened(header, True, None)
    detail = "the record's key is not the header's source"
    return Opened(header, False, Refusal(RefusedReason.BAD_HEADER, detail))


def judge_envelope(
    header: EnvelopeHeader, size: int, lines: int, log_ts_us: int, limits: MeterLimits
) -> Refusal | None:
    """Whether an envelope with a good header passes as a whole; None if it does.

    ``size`` is in bytes; ``lines`` are counted without the header.
    """
    if header.v != FORMAT_VERSION:
        return Refusal(
            RefusedReason.NEWER_FORMAT,
            f"header field 'v' is {header.v}, this meter reads {FORMAT_VERSION}",
        )
    if header.n > limits.max_events:
        return Refusal(
            RefusedReason.TOO_LARGE, f"{header.n} events, at most {limits.max_events} are allowed"
        )
    if size > limits.max_bytes:
        return Refusal(
            RefusedReason.TOO_LARGE, f"{size} bytes, at most {limits.max_bytes} are allowed"
        )
    if header.n != lines:
        return Refusal(
            RefusedReason.COUNT_MISMATCH,
            f"header field 'n' is {header.n}, {lines} lines follow",
        )
    if log_ts_us - header.sent_us > limits.dedupe_horizon_us:
        return Refusal(
            RefusedReason.TOO_LATE,
            f"sent {(log_ts_us - header.sent_us) // 1_000_000} s before it reached the log",
        )
    if header.sent_us - log_ts_us > limits.future_us:
        return Refusal(
            RefusedReason.FUTURE_ENVELOPE,
            f"'sent_us' is {(header.sent_us - log_ts_us) // 1_000_000} s ahead of the log",
        )
    return None


_decoder = msgspec.json.Decoder(EnvelopeHeader)
_FIELDS = EnvelopeHeader.__struct_fields__
_EMPTY: dict[str, Any] = {"v": 0, "seq": 0, "n": 0, "sent_us": 0, "project": ""}
_PROBE = _EMPTY | {"v": FORMAT_VERSION, "source": NIL_SOURCE, "project": "-"}


def _salvage(line: bytes) -> tuple[EnvelopeHeader, bool]:
    """The fields of a bad header that are good in themselves, the rest empty."""
    try:
        raw = orjson.loads(line)
    except orjson.JSONDecodeError:
        raw = None
    good: dict[str, Any] = {}
    if isinstance(raw, dict):
        good = {name: raw[name] for name in _FIELDS if name in raw and _good(name, raw[name])}
    identified = "source" in good and "seq" in good
    return EnvelopeHeader(**(_EMPTY | {"source": NIL_SOURCE} | good)), identified


def _good(name: str, value: object) -> bool:
    """Whether a header that is otherwise in order would parse with this value."""
    try:
        decode_header(orjson.dumps(_PROBE | {name: value}))
    except (HeaderError, orjson.JSONEncodeError):
        return False
    return True
