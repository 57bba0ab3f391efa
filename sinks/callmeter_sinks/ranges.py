"""Ranges: what goes into one insert. Cut where the meter made a checkpoint.

Then raw rows and the rollups of the same origins become visible together. A checkpoint larger than
the bound on bytes is cut inside, because memory must be bounded: then the rollups follow with the
next insert.
"""

from __future__ import annotations

import math
import zlib
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from callmeter_sinks.rows import Metered


@dataclass(frozen=True, slots=True)
class RangeLimits:
    """When a range is closed: ``max_events`` or ``linger_s`` reached, at a checkpoint's end.

    ``linger_s`` is the pace of a partition that is busy, from one range to the next. What comes
    after a silence of that long waits for ``prompt_s`` only: somebody may be watching.
    ``max_bytes`` is the bound on what is held of one partition.
    """

    max_events: int = 20_000
    linger_s: float = 1.0
    max_bytes: int = 32 * 2**20
    prompt_s: float = 0.05


class Piece(NamedTuple):
    """A record of a range. ``metered`` None: no meter wrote it, so it is in quarantine."""

    offset: int
    value: bytes
    metered: Metered | None


@dataclass(frozen=True, slots=True)
class Range:
    """Consecutive records of one partition and one log, inserted together under one token."""

    log_id: str
    pieces: Sequence[Piece]
    origin_first: int  # the first origin in it; == origin_next if it has deltas only
    origin_next: int  # the origin that follows it
    #: Offsets of the intent, if the range was read again: compaction may have taken its ends.
    bounds: tuple[int, int] | None = None

    @property
    def first(self) -> int:
        return self.bounds[0] if self.bounds else self.pieces[0].offset

    @property
    def last(self) -> int:
        return self.bounds[1] if self.bounds else self.pieces[-1].offset

    def crc32(self) -> int:
        """Of the records in order, whether inserted or left out: header line, offset and size.

        A header names log, origin, source and seq, so other records have another one. The lines
        are left out of it because summing them up would be most of the sink's own work (0.5 µs of
        0.6 µs per event).
        """
        crc = 0
        for offset, value, metered in self.pieces:
            header = value[: metered.body_at] if metered else value
            crc = zlib.crc32(b"%d %d " % (offset, len(value)), zlib.crc32(header, crc))
        return crc

    def records(self, without: Collection[int] = ()) -> list[Metered]:
        """What is inserted: all but the offsets in quarantine."""
        return [p.metered for p in self.pieces if p.metered and p.offset not in without]

    @property
    def events(self) -> int:
        return sum(p.metered.events for p in self.pieces if p.metered)


class RangeBuffer:
    """What was read of a partition and not yet inserted. Plain memory, no clock of its own."""

    def __init__(self, limits: RangeLimits) -> None:
        self._limits = limits
        self._pieces: deque[Piece] = deque()
        self._complete = 0  # how many pieces lie before or at the last checkpoint's end
        self._complete_events = 0
        self._open_events = 0
        self._began_s = 0.0
        self._taken_s = -math.inf  # when the range before was taken
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._pieces)

    def add(self, piece: Piece, now_s: float) -> None:
        """Append the next record; ``now_s`` is monotonic."""
        if not self._pieces:
            self._began_s = now_s
        self._pieces.append(piece)
        self.bytes += len(piece.value)
        if piece.metered is None:
            return
        self._open_events += piece.metered.events
        if piece.metered.ends_checkpoint:
            self._complete = len(self._pieces)
            self._complete_events += self._open_events
            self._open_events = 0

    def full(self) -> bool:
        """Whether nothing more should be read before an insert."""
        return self.bytes >= self._limits.max_bytes or (
            self._complete > 0 and self._complete_events >= self._limits.max_events
        )

    def due_in_s(self, now_s: float) -> float | None:
        """Seconds until an insert is due: 0 now, None while there is no whole checkpoint."""
        if self.full():
            return 0.0
        if not self._complete:
            return None
        limits = self._limits
        in_pace_s = self._taken_s + limits.linger_s
        prompt_s = self._began_s + min(limits.prompt_s, limits.linger_s)
        due_s = min(self._began_s + limits.linger_s, max(prompt_s, in_pace_s))
        return max(0.0, due_s - now_s)

    def take(self, now_s: float, *, everything: bool = False) -> list[Piece]:
        """Remove what goes into the next range: up to the last whole checkpoint.

        Everything, if asked for (another log follows, or the end of a drain), or if a checkpoint
        alone is over the bound on bytes.
        """
        count = len(self._pieces) if everything or not self._complete else self._complete
        taken = [self._pieces.popleft() for _ in range(count)]
        self.bytes = sum(len(p.value) for p in self._pieces)
        self._complete = 0
        self._complete_events = 0
        self._open_events = sum(p.metered.events for p in self._pieces if p.metered)
        self._began_s = now_s
        if taken:
            self._taken_s = now_s
        return taken
