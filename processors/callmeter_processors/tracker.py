"""The numbers of one source: what is new, what is a duplicate, what is missing."""

from __future__ import annotations

from enum import Enum


class Seen(Enum):
    """What a seq is to its source."""

    NEW = "new"
    DUPLICATE = "duplicate"
    GIVEN_UP = "given_up"  # below ranges that were given up: nobody knows whether it was seen


class Tracker:
    """The numbers of one source.

    ``gaps`` are [first, last, log time when noticed], ascending and disjoint, all below ``next``.
    Below ``floor`` nothing is known any more; ``given_up`` counts the seqs that were missing there.
    ``alerted`` are the ranges [first, last] that were told of as missing and have not all come.
    ``beats``: it has said that it lives or what it begins, so its silence tells something sooner.
    ``unclean``: it was told of as ended without a close. ``skewed`` is the seq after the envelope
    that its clock was told of by, 0 while nothing was.
    """

    __slots__ = (
        "alerted",
        "beats",
        "floor",
        "gaps",
        "given_up",
        "last",
        "next",
        "project",
        "seen_us",
        "service",
        "skewed",
        "unclean",
    )

    def __init__(self, next_seq: int = 0, seen_us: int = 0) -> None:
        self.next = next_seq
        self.seen_us = seen_us
        self.gaps: list[list[int]] = []
        self.floor = 0
        self.given_up = 0
        self.last = False
        self.alerted: list[list[int]] = []
        self.beats = False
        self.unclean = False
        self.skewed = 0
        self.project = ""
        self.service = ""

    def take(self, seq: int, now_us: int, max_gaps: int) -> Seen:
        """Mark ``seq`` as seen and say what it was. A duplicate changes nothing."""
        if seq == self.next:
            self.next = seq + 1
        elif seq > self.next:
            self.gaps.append([self.next, seq - 1, now_us])
            self.next = seq + 1
            self._cap(max_gaps)
        elif seq < self.floor:
            return Seen.GIVEN_UP
        elif not self._fill(seq):
            return Seen.DUPLICATE
        else:
            self._cap(max_gaps)
        self.seen_us = max(self.seen_us, now_us)
        return Seen.NEW

    def _fill(self, seq: int) -> bool:
        """Take ``seq`` out of the missing ranges; False if it is in none."""
        gaps = self.gaps
        for i in range(len(gaps) - 1, -1, -1):
            first, last, since = gaps[i]
            if seq > last:
                return False
            if seq < first:
                continue
            rest = [[first, seq - 1, since], [seq + 1, last, since]]
            gaps[i : i + 1] = [gap for gap in rest if gap[0] <= gap[1]]
            return True
        return False

    def _cap(self, max_gaps: int) -> None:
        while len(self.gaps) > max_gaps:
            first, last, _ = self.gaps.pop(0)
            self.floor = last + 1
            self.given_up += last - first + 1

    @property
    def ended(self) -> bool:
        """Closed, or told of as ended without a close."""
        return self.last or self.unclean

    @property
    def compact(self) -> bool:
        """Ended with nothing missing: its next seq says all there is to know."""
        return self.ended and not (self.gaps or self.floor or self.alerted)
