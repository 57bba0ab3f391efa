"""Cuts a stream of event lines into envelopes by line count and bytes alone.

The same lines and options give the same source and the same event lines under the same seq, however
often and however far the file is replayed, so a second replay is made of duplicates.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from callmeter.clock import Clock
from callmeter.schema.envelope import MAX_BYTES, Header, encode
from callmeter.transports.protocol import Sealed

#: Room for a header with texts at their limits (256 characters each, escaped).
_HEADER_ROOM = 8 * 1024


@dataclass(frozen=True, slots=True)
class Origin:
    """Who the envelopes are from; what stands in every header."""

    source: str
    project: str
    environment: str = ""
    service: str = ""
    sdk: str = ""


def cut(
    lines: Iterable[bytes], origin: Origin, clock: Clock, *, max_events: int = 500
) -> Iterator[Sealed]:
    """Envelopes of at most ``max_events`` lines and 256 KiB; the final one says ``last``."""
    accepted = 0
    seq = 0
    waiting: list[bytes] | None = None
    for group in _groups(lines, max_events):
        if waiting is not None:
            accepted += len(waiting)
            yield _seal(waiting, origin, clock, seq, accepted, last=False)
            seq += 1
        waiting = group
    if waiting is not None:
        accepted += len(waiting)
        yield _seal(waiting, origin, clock, seq, accepted, last=True)


def _groups(lines: Iterable[bytes], max_events: int) -> Iterator[list[bytes]]:
    group: list[bytes] = []
    size = _HEADER_ROOM
    for line in lines:
        if group and (len(group) >= max_events or size + len(line) + 1 > MAX_BYTES):
            yield group
            group, size = [], _HEADER_ROOM
        group.append(line)
        size += len(line) + 1
    if group:
        yield group


def _seal(
    lines: list[bytes], origin: Origin, clock: Clock, seq: int, accepted: int, *, last: bool
) -> Sealed:
    header = Header(
        source=origin.source,
        seq=seq,
        n=len(lines),
        sent_us=clock.now_us(),
        project=origin.project,
        environment=origin.environment,
        service=origin.service,
        sdk=origin.sdk,
        accepted=accepted,
        last=last,
    )
    return Sealed(origin.source, seq, len(lines), encode(header, lines))
