"""The sources of a partition: who speaks, who has ended, what each has missing.

Per source: the next seq, and the ranges below it that never came. Everything else below it was
seen, so an envelope sent again is known by its number alone, whatever its bytes. State is bounded:
a source that has ended and misses nothing shrinks to its next seq, the missing ranges of a source
are capped, and a source silent for longer than the horizon is forgotten.

A source is *speaking* until it has closed, or was silent for so long that it is told of as ended
uncleanly; then it has *ended*. It may speak again.
"""

from __future__ import annotations

import uuid
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from callmeter_processors.limits import DAY_US, MeterLimits
from callmeter_processors.tracker import Seen, Tracker


class End(NamedTuple):
    """A source that has ended without a close before seq ``next``."""

    source: str
    tracker: Tracker
    next: int


class Sources:
    """The trackers of a partition's sources, and which of them changed since the last checkpoint.

    Speaking sources are kept in the order they were last heard of, compact ones by the day they
    were, as 16 bytes and an integer: millions of short-lived processes cost 180 to 280 bytes each.
    """

    def __init__(self, limits: MeterLimits) -> None:
        self._limits = limits
        #: Speaking sources; those of them that are silent for a while and never said that they
        #: would not be; and those that have ended but miss something.
        self._open: OrderedDict[str, Tracker] = OrderedDict()
        self._quiet: OrderedDict[str, Tracker] = OrderedDict()
        self._ended: OrderedDict[str, Tracker] = OrderedDict()
        #: By day: source → twice its next seq, one more if it ended uncleanly.
        self._compact: dict[int, dict[bytes, int]] = {}
        self._changed: dict[str, Tracker] = {}
        self._now_us = 0
        #: Sources that miss something, or did when they were last looked at.
        self.gappy: dict[str, Tracker] = {}
        #: Sources that spoke again, to be taken by whoever tells of it.
        self.resumed: list[End] = []
        #: Envelopes found missing, come after all, and given up, since they were last asked for.
        self._missing = self._filled = self._given_up = 0

    def __len__(self) -> int:
        return self._full + sum(map(len, self._compact.values()))

    @property
    def newest_us(self) -> int:
        """The log's time of the newest envelope that is known of; 0 without any."""
        return self._now_us

    @property
    def _full(self) -> int:
        return len(self._open) + len(self._quiet) + len(self._ended)

    def restore(self, trackers: Iterable[tuple[str, Tracker]]) -> None:
        """Take over the sources of the last checkpoint. Called once, first."""
        # Most have ended: they are put away one by one, and only the others are sorted.
        others: list[tuple[str, Tracker]] = []
        for source, tracker in trackers:
            self._now_us = max(self._now_us, tracker.seen_us)
            if tracker.compact:
                self._put(source, tracker)
            else:
                others.append((source, tracker))
        for source, tracker in sorted(others, key=lambda item: item[1].seen_us):
            self._put(source, tracker)
            if tracker.gaps or tracker.alerted:
                self.gappy[source] = tracker

    def _put(self, source: str, tracker: Tracker) -> None:
        if tracker.compact:
            day = tracker.seen_us // DAY_US
            self._compact.setdefault(day, {})[_key(source)] = 2 * tracker.next + tracker.unclean
        elif tracker.ended:
            self._ended[source] = tracker
        else:
            self._open[source] = tracker

    def tracker(self, source: str) -> Tracker | None:
        """A source's numbers; None if it is not known, or has ended with nothing missing."""
        return self._open.get(source) or self._quiet.get(source) or self._ended.get(source)

    def speaking(self) -> Iterator[tuple[str, Tracker]]:
        """Sources that have not ended, those that were silent for longest first."""
        yield from self._quiet.items()
        yield from self._open.items()

    def beats(self, source: str) -> None:
        """The source has said that it lives, or what it begins: its row says so from now on."""
        tracker = self._open.get(source)
        if tracker is not None:
            tracker.beats = True

    def note(self, source: str, tracker: Tracker) -> None:
        """The tracker was changed from outside: its row is to be written."""
        self._changed[source] = tracker

    def take(
        self,
        source: str,
        seq: int,
        now_us: int,
        *,
        last: bool,
        project: str = "",
        service: str = "",
    ) -> Seen:
        """Mark an envelope's number as seen at log time ``now_us`` and say what it was.

        ``project`` and ``service`` are kept of a source's first envelope, for whoever tells of it.
        """
        self._now_us = max(self._now_us, now_us)
        tracker = self._open.get(source)
        if tracker is None:
            tracker = self._recall(source, seq)
            if tracker is None:
                return Seen.DUPLICATE
            if not tracker.project:
                tracker.project, tracker.service = project, service
        due, given_up = tracker.next, tracker.given_up
        seen = tracker.take(seq, now_us, self._limits.gaps_per_source)
        if seen is Seen.NEW:
            if seq != due:
                self._missing += max(0, seq - due)
                self._filled += seq < due
                self._given_up += tracker.given_up - given_up
            if tracker.unclean and seq >= due:
                tracker.unclean = False
                self.resumed.append(End(source, tracker, due))
            tracker.last = tracker.last or last
            self._changed[source] = tracker
            self._open.move_to_end(source)
            if tracker.gaps:
                self.gappy[source] = tracker
        return seen

    def _recall(self, source: str, seq: int) -> Tracker | None:
        """Makes a source known that is not speaking; None if ``seq`` is a compact one's duplicate.

        It is among the speaking ones until the next checkpoint says where it belongs.
        """
        tracker = self._quiet.pop(source, None) or self._ended.pop(source, None)
        if tracker is None:
            key = _key(source)
            bucket = self._find_compact(key)
            if bucket is None:
                tracker = Tracker()
            else:
                next_seq, unclean = divmod(bucket[key], 2)
                if seq < next_seq:
                    return None
                del bucket[key]
                tracker = Tracker(next_seq)
                tracker.unclean = bool(unclean)
        self._open[source] = tracker
        return tracker

    def fall_silent(self, now_us: int, since_us: int) -> list[tuple[str, Tracker]]:
        """Sources that have ended without a close at the log's time ``now_us``, a bounded number.

        Nothing could be heard before ``since_us``. They are ``unclean`` from now on.
        """
        limits = self._limits
        found: list[tuple[str, Tracker]] = []
        while self._open and len(found) < limits.ends_per_look:
            source, tracker = next(iter(self._open.items()))
            if now_us - max(tracker.seen_us, since_us) < limits.silent_us:
                break
            del self._open[source]
            if tracker.ended:
                self._ended[source] = tracker
            elif tracker.beats:
                found.append((source, tracker))
            else:
                self._quiet[source] = tracker
        while self._quiet and len(found) < limits.ends_per_look:
            source, tracker = next(iter(self._quiet.items()))
            if now_us - max(tracker.seen_us, since_us) < limits.quiet_us:
                break
            del self._quiet[source]
            found.append((source, tracker))
        for source, tracker in found:
            tracker.unclean = True
            # Where it belongs is seen to with the row, at the checkpoint.
            self._ended[source] = tracker
            self._changed[source] = tracker
        return found

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
            "sources_open": self._full,
            "sources_closed": len(self) - self._full,
            "missing_envelopes": sum(last - first + 1 for first, last, _ in gaps),
        }

    def drain(self) -> tuple[dict[str, Tracker], list[str]]:
        """Sources that changed, and sources forgotten, since the last call."""
        changed = self._changed
        self._changed = {}
        for source, tracker in changed.items():
            if tracker.ended:
                if self._open.pop(source, None) is None:
                    self._ended.pop(source, None)
                self._put(source, tracker)
        return changed, self._forget()

    def _forget(self) -> list[str]:
        horizon = self._now_us - self._limits.keep_us
        room = self._limits.forget_per_checkpoint
        forgotten: list[str] = []
        for kept in (self._open, self._quiet, self._ended):
            while kept and len(forgotten) < room:
                source, tracker = next(iter(kept.items()))
                if tracker.seen_us >= horizon:
                    break
                del kept[source]
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

    def _find_compact(self, key: bytes) -> dict[bytes, int] | None:
        for bucket in self._compact.values():
            if key in bucket:
                return bucket
        return None


def _key(source: str) -> bytes:
    return bytes.fromhex(source.replace("-", ""))
