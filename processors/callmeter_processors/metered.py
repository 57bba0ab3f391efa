"""Writes records of the topic ``metered``: the envelope as judged, and a checkpoint's deltas."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import msgspec
from msgspec import Struct

from callmeter.log.record import LogRecord
from callmeter.schema.header import EnvelopeHeader
from callmeter.schema.metered import Controls, Delta, DeltasHeader, MeteredHeader
from callmeter.schema.reasons import Verdict
from callmeter_processors.judge import Refusal

_encoder = msgspec.json.Encoder()


def metered_header(
    log_id: str,
    record: LogRecord,
    header: EnvelopeHeader,
    verdict: Verdict,
    refusal: Refusal | None = None,
) -> MeteredHeader:
    """Line 0 for a record: its origin, what became of it, and its own header."""
    return MeteredHeader(
        log=log_id,
        partition=record.partition,
        offset=record.offset,
        log_ts_us=record.timestamp_us,
        verdict=verdict.value,
        reason="" if refusal is None else refusal.reason.value,
        detail="" if refusal is None else refusal.detail,
        source=header.source,
        seq=header.seq,
        n=header.n,
        sent_us=header.sent_us,
        project=header.project,
        environment=header.environment,
        service=header.service,
        sdk=header.sdk,
        accepted=header.accepted,
        dropped=header.dropped,
        last=header.last,
        bytes=len(record.value or b""),
    )


def encode_lines(lines: Sequence[Struct]) -> bytes:
    """Lines of a metered record, each ended by a newline; the header is the first of them."""
    return _encoder.encode_lines(lines)


def tail_of(source: str, version: str) -> bytes:
    """What stands behind the digits of a cost, to the end of the call's line."""
    return b'","cost_source":%b,"price_version":%b}\n' % (
        _encoder.encode(source),
        _encoder.encode(version),
    )


def encode_deltas(
    header: DeltasHeader, controls: Controls, deltas: Iterable[Delta], part_bytes: int
) -> Iterator[bytes]:
    """The deltas records of a checkpoint, at least one, each of about ``part_bytes`` at most.

    The controls stand in part 0 alone, whatever the header says.
    """
    parts: list[list[bytes]] = [[]]
    size = 0
    for delta in deltas:
        line = _encoder.encode(delta)
        if size and size + len(line) > part_bytes:
            parts.append([])
            size = 0
        parts[-1].append(line)
        size += len(line) + 1
    for part, lines in enumerate(parts):
        head = msgspec.structs.replace(
            header,
            part=part,
            parts=len(parts),
            controls=msgspec.UNSET if part else controls,
        )
        yield b"\n".join((_encoder.encode(head), *lines, b""))
