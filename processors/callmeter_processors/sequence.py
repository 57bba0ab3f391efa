"""Sequence numbers of sources: what is new, what is a duplicate, what is missing.

Per source: the next seq, and the ranges below it that never came. Everything else below it was
seen, so an envelope sent again is known by its number alone, whatever its bytes. State is bounded:
a source that closed cleanly without gaps shrinks to its next seq, the missing ranges of a source
are capped, and a source silent for longer than the horizon is forgotten.
"""

from __future__ import annotations

import uuid
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from enum import Enum

from callmeter_processors.limits import DAY_US, MeterLimits


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
    """

    __slots__ = ("alerted", "floor", "gaps", "given_up", "last", "next", "seen_us")

    def __init__(self, next_seq: int = 0, seen_us: int = 0) -> None:
        self.next = next_seq
        self.seen_us = seen_us
        self.gaps: list[list[int]] = []
        self.floor = 0
        self.given_up = 0
        self.last = False
        self.alerted: list[list[int]] = []

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
    def compact(self) -> bool:
        """Closed cleanly with nothing missing: its next seq says all there is to know."""
        return self.last and not self.gaps and not self.floor and not self.alerted


class Sources:
    """The trackers of a partition's sources, and which of them changed since the last checkpoint.

    Sources still open are kept in the order they were last heard of, compact ones by the day they
    were, as 16 bytes and an integer: millions of short-lived processes cost about 150 bytes each.
    """

    def __init__(self, limits: MeterLimits) -> None:
        self._limits = limits
        self._open: OrderedDict[str, Tracker] = OrderedDict()
        self._compact: dict[int, dict[bytes, int]] = {}
        self._changed: dict[str, Tracker] = {}
        self._now_us = 0
        #: Sources that miss something, or did when they were last looked at.
        self.gappy: dict[str, Tracker] = {}
        #: Envelopes found missing, come after all, and given up, since they were last asked for.
        self._missing = self._filled = self._given_up = 0

    def __len__(self) -> int:
        return len(self._open) + sum(map(len, self._compact.values()))

    def restore(self, trackers: Iterable[tuple[str, Tracker]]) -> None:
        """Take over the sources of the last checkpoint. Called once, first."""
        for source, tracker in sorted(trackers, key=lambda item: item[1].seen_us):
            if tracker.compact:
                self._store_compact(source, tracker)
            else:
                self._open[source] = tracker
                if tracker.gaps or tracker.alerted:
                    self.gappy[source] = tracker

    def tracker(self, source: str) -> Tracker | None:
        """A source's numbers; None if it is not known, or closed with nothing missing."""
        return self._open.get(source)

    def speaking(self) -> Iterator[tuple[str, Tracker]]:
        """Sources that have not closed with nothing missing."""
        return iter(self._open.items())

    def note(self, source: str, tracker: Tracker) -> None:
        """The tracker was changed from outside: its row is to be written."""
        self._changed[source] = tracker

    def take(self, source: str, seq: int, now_us: int, *, last: bool) -> Seen:
        """Mark an envelope's number as seen at log time ``now_us`` and say what it was."""
        self._now_us = max(self._now_us, now_us)
        tracker = self._open.get(source)
        if tracker is None:
            key = _key(source)
            bucket = self._find_compact(key)
            if bucket is None:
                tracker = Tracker()
            else:
                if seq < bucket[key]:
                    return Seen.DUPLICATE
                tracker = Tracker(bucket.pop(key))
            self._open[source] = tracker
        due, given_up = tracker.next, tracker.given_up
        seen = tracker.take(seq, now_us, self._limits.gaps_per_source)
        if seen is Seen.NEW:
            if seq != due:
                self._missing += max(0, seq - due)
                self._filled += seq < due
                self._given_up += tracker.given_up - given_up
            tracker.last = tracker.last or last
            self._changed[source] = tracker
            self._open.move_to_end(source)
            if tracker.gaps:
                self.gappy[source] = tracker
        return seen

    def counted(self) -> dict[tuple[str, str], int]:
        """Envelopes ``missing``, ``filled`` and ``given_up`` since the last call, for metrics."""
        counts = {
            ("sequence", "missing"): self._missing,
            ("sequence", "filled"): self._filled,
            ("sequence", "given_up"): self._given_up,
        }
        self._missing = self._filled = self._given_up = 0
        return counts

    def figures(self) -> dict[str, int]:
        """How many sources there are, and how many envelopes are missing now."""
        gaps = [gap for tracker in list(self.gappy.values()) for gap in tracker.gaps]
        return {
            "sources_open": len(self._open),
            "sources_closed": len(self) - len(self._open),
            "missing_envelopes": sum(last - first + 1 for first, last, _ in gaps),
        }

    def drain(self) -> tuple[dict[str, Tracker], list[str]]:
        """Sources that changed, and sources forgotten, since the last call."""
        changed = self._changed
        self._changed = {}
        for source, tracker in changed.items():
            if tracker.compact:
                del self._open[source]
                self._store_compact(source, tracker)
        return changed, self._forget()

    def _forget(self) -> list[str]:
        horizon = self._now_us - self._limits.keep_us
        room = self._limits.forget_per_checkpoint
        forgotten: list[str] = []
        while self._open and len(forgotten) < room:
            source, tracker = next(iter(self._open.items()))
            if tracker.seen_us >= horizon:
                break
            del self._open[source]
            self.gappy.pop(source, None)
            forgotten.append(source)
        for day in sorted(self._compact):
            bucket = self._compact[day]
            if (day + 1) * DAY_US > horizon:
                break
            while bucket and len(forgotten) < room:
                forgotten.append(str(uuid.UUID(bytes=bucket.popitem()[0])))
            if bucket:
                break
            del self._compact[day]
        return forgotten

    def _store_compact(self, source: str, tracker: Tracker) -> None:
        day = tracker.seen_us // DAY_US
        self._compact.setdefault(day, {})[_key(source)] = tracker.next

    def _find_compact(self, key: bytes) -> dict[bytes, int] | None:
        for bucket in self._compact.values():
            if key in bucket:
                return bucket
        return None


def _key(source: str) -> bytes:
    return bytes.fromhex(source.replace("-", ""))
