"""State rows of the meter: one for each source, ``s:<source>``.

A row carries its format version and the id of the log it speaks of. Rows of another log are ignored
(a wiped log starts a new history), rows of a newer version stop the worker before it commits, rows
of the version before are read (docs/decisions/0018).

    1  next, seen_us, last, gaps, floor, given_up, alerted
    2  beats, unclean, skewed, project, service
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec
from msgspec import Struct

from callmeter_processors.rowformat import readable
from callmeter_processors.tracker import Tracker

ROW_VERSION = 2
PREFIX = b"s:"


class SourceRow(Struct, omit_defaults=True):
    """What is remembered of a source; see ``tracker.Tracker`` for the fields."""

    v: int
    log: str
    next: int
    seen_us: int
    last: bool = False
    gaps: list[list[int]] = []
    floor: int = 0
    given_up: int = 0
    alerted: list[list[int]] = []
    beats: bool = False
    unclean: bool = False
    skewed: int = 0
    project: str = ""
    service: str = ""


_decoder = msgspec.json.Decoder(SourceRow)
_encoder = msgspec.json.Encoder()


def row_key(source: str) -> bytes:
    """The name of a source's row."""
    return PREFIX + source.encode()


def encode_row(log_id: str, tracker: Tracker) -> bytes:
    """A source's row; at most ``gaps_per_source`` ranges long."""
    row = SourceRow(
        v=ROW_VERSION,
        log=log_id,
        next=tracker.next,
        seen_us=tracker.seen_us,
        last=tracker.last,
        gaps=tracker.gaps,
        floor=tracker.floor,
        given_up=tracker.given_up,
        alerted=tracker.alerted,
        unclean=tracker.unclean,
    )
    if not tracker.compact:
        row.beats = tracker.beats
        row.skewed = tracker.skewed
        row.project = tracker.project
        row.service = tracker.service
    return _encoder.encode(row)


def decode_rows(log_id: str, rows: Mapping[bytes, bytes]) -> Iterator[tuple[str, Tracker]]:
    """The sources among a partition's rows. ``NewerSchemaError`` for a row of a newer format."""
    for key, value in rows.items():
        if not key.startswith(PREFIX):
            continue
        if not readable(key, value, log_id, ROW_VERSION):
            continue
        row = _decoder.decode(value)
        tracker = Tracker(row.next, row.seen_us)
        tracker.last = row.last
        tracker.gaps = row.gaps
        tracker.floor = row.floor
        tracker.given_up = row.given_up
        tracker.alerted = row.alerted
        tracker.beats = row.beats
        tracker.unclean = row.unclean
        tracker.skewed = row.skewed
        tracker.project = row.project
        tracker.service = row.service
        yield key[len(PREFIX) :].decode(), tracker
