"""The spool that the outbox uses: this source's shelf, and those that dead processes left.

    put ──► own shelf ──take──► handed out ──done──► settled ──► segment deleted when all are
                 ▲                  │
                 └───────back───────┘
    adopt ──► shelves of dead sources, taken and settled the same way, bytes and names unchanged

Nothing here raises for a disk's sake: what cannot be kept stays with the caller, what is lost is
counted. A frame is in the file, and so survives the death of the process, when ``put`` returns.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from callmeter.errors import CannotWriteError
from callmeter.schema.envelope import HeaderError, decode_header
from callmeter.schema.reasons import DropReason
from callmeter.sdk.spool import shelf as shelves
from callmeter.sdk.spool.segment import Segment
from callmeter.sdk.spool.shelf import Shelf
from callmeter.sdk.spool.syncer import Syncer
from callmeter.transports.protocol import Sealed

#: How long the meter tells duplicates from news (design 4), less an hour for the way there.
HORIZON_US = (30 * 24 - 1) * 3_600_000_000


class DiskSpool:
    """One for each source; all methods on the shipper's thread, except ``events*``, which may be
    asked from any.

    ``max_bytes`` bounds what this process keeps, adopted directories included; beyond it the oldest
    segment goes (``drop="oldest"``) or the new envelope is not kept (``"newest"``).
    """

    def __init__(
        self,
        root: Path,
        source: str,
        *,
        max_bytes: int,
        sync_interval_s: float,
        now_us: Callable[[], int],
        drop: str = "oldest",
    ) -> None:
        self._root = root
        self._source = source
        self._max_bytes = max_bytes
        self._drop_newest = drop == "newest"
        self._now_us = now_us
        self._own: Shelf | None = None
        self._adopted: list[Shelf] = []
        self._out: dict[tuple[str, int], tuple[Shelf, Segment, int]] = {}
        self._syncer = Syncer(sync_interval_s)
        self._losses: list[tuple[DropReason, int]] = []
        self._closed = False
        #: Events of dead processes that were delivered from here, and that were lost.
        self.recovered = 0
        self.recovered_dropped: Counter[DropReason] = Counter()
        #: Stretches of segments that no checksum fits: torn by a crash, or rotten.
        self.broken = 0
        #: The disk's last trouble in one line.
        self.error: str | None = None

    # -- in --------------------------------------------------------------------------------------

    def put(self, envelope: Sealed) -> DropReason | None:
        """Keep an envelope; why not, if it could not be kept."""
        if self._closed:
            return DropReason.SHUTDOWN
        size = len(envelope.data)
        while self.disk_bytes() + size > self._max_bytes:
            if self._drop_newest or not self._evict_oldest():
                return DropReason.SPOOL_FULL
        try:
            if self._own is None:
                self._own = shelves.make(self._root, self._source)
            segment = self._own.append(envelope.seq, envelope.n, envelope.data)
        except (OSError, CannotWriteError) as exc:
            self._trouble(exc)
            return DropReason.SPOOL_ERROR
        self._syncer.written(segment.fileno())
        return None

    def adopt(self) -> None:
        """Take over what processes that have died left here."""
        if not self._closed:
            self._adopted += shelves.adopt(self._root, self._source)

    # -- out -------------------------------------------------------------------------------------

    def take(self) -> Sealed | None:
        """The oldest envelope of this source that is not handed out, or None."""
        return None if self._own is None else self._take_from(self._own)

    def take_adopted(self) -> Sealed | None:
        """The oldest envelope that a dead process left and that is not handed out, or None."""
        for shelf in list(self._adopted):
            if (envelope := self._take_from(shelf)) is not None:
                return envelope
            self._release(shelf)
        return None

    def done(self, envelope: Sealed, dropped: DropReason | None = None) -> None:
        """An envelope that was handed out is delivered, or given up for a reason."""
        shelf, segment, index = self._out.pop((envelope.source, envelope.seq))
        if dropped is not None:
            self._lost(shelf, dropped, envelope.n)
        elif shelf is not self._own:
            self.recovered += envelope.n
        self._settle(shelf, segment, index)
        if shelf is not self._own:
            self._release(shelf)

    def back(self, envelope: Sealed) -> None:
        """An envelope that was handed out was not delivered."""
        shelf, segment, index = self._out.pop((envelope.source, envelope.seq))
        if segment.removed:
            self._lost(shelf, DropReason.SPOOL_FULL, envelope.n)
        else:
            segment.give_back(index)

    # -- figures ---------------------------------------------------------------------------------

    def disk_bytes(self) -> int:
        """Bytes on disk."""
        own = 0 if self._own is None else self._own.disk_bytes()
        return own + sum(shelf.disk_bytes() for shelf in self._adopted)

    def events(self) -> int:
        """Events of this source that are kept here, handed out or not."""
        return self.events_below(2**64)

    def events_below(self, seq: int) -> int:
        """Those of them in envelopes below ``seq``."""
        own = self._own
        if own is None:
            return 0
        kept = sum(s.events_below(seq) for s in list(own.segments) if s.events)
        # On its way when its segment had to make room.
        return kept + sum(
            segment.count(index)
            for (source, at), (_, segment, index) in list(self._out.items())
            if segment.removed and source == self._source and at < seq
        )

    def backlog(self) -> bool:
        """Whether anything is here to be sent, of whatever source."""
        return bool(self._adopted) or self.events() > 0

    def losses(self) -> list[tuple[DropReason, int]]:
        """What this source has lost here since the last call, as (reason, events)."""
        losses, self._losses = self._losses, []
        return losses

    # -- end -------------------------------------------------------------------------------------

    def close(self) -> None:
        """Bring all to the disk and let go of it: the next process may take it."""
        if self._closed:
            return
        self._closed = True
        self._syncer.close()
        for shelf in [*self._adopted, *([] if self._own is None else [self._own])]:
            shelf.close()

    def forked(self) -> None:
        """In a forked child: all here is the parent's."""
        self._closed = True
        for shelf in [*self._adopted, *([] if self._own is None else [self._own])]:
            shelf.forked()

    # -- within ----------------------------------------------------------------------------------

    def _take_from(self, shelf: Shelf) -> Sealed | None:
        for segment in list(shelf.segments):
            while (index := self._next_of(shelf, segment)) is not None:
                seq, events = segment.seq(index), segment.count(index)
                data = self._read(segment, index)
                reason = DropReason.SPOOL_ERROR if data is None else self._expired(data)
                if data is not None and reason is None:
                    self._out[shelf.source, seq] = (shelf, segment, index)
                    return Sealed(shelf.source, seq, events, data)
                self._lost(shelf, reason or DropReason.SPOOL_ERROR, events)
                if self._settle(shelf, segment, index):
                    break
        return None

    def _next_of(self, shelf: Shelf, segment: Segment) -> int | None:
        """The next frame; a segment that another process wrote is read when its turn comes."""
        if not segment.loaded:
            try:
                segment.load()
            except OSError as exc:
                self._trouble(exc)
                return None
            self.broken += segment.broken
            if segment.settled():
                self._drop(shelf, segment)
                return None
        return segment.take()

    def _read(self, segment: Segment, index: int) -> bytes | None:
        try:
            return segment.read(index)
        except OSError as exc:
            self._trouble(exc)
            return None

    def _expired(self, data: bytes) -> DropReason | None:
        """The meter no longer knows what it has seen of an envelope so old, and refuses it."""
        try:
            header = decode_header(data[: data.index(b"\n")])
        except (HeaderError, ValueError):
            return DropReason.SPOOL_ERROR
        late = header.sent_us < self._now_us() - HORIZON_US
        return DropReason.SPOOL_EXPIRED if late else None

    def _settle(self, shelf: Shelf, segment: Segment, index: int) -> bool:
        """A frame is done with; whether its segment went with it."""
        segment.settle(index)
        if not segment.settled() or segment.removed:
            return False
        if shelf is self._own and segment is shelf.segments[-1]:
            with suppress(OSError):  # then it is emptied with a later one
                segment.rewind()
        else:
            self._drop(shelf, segment)
        return True

    def _evict_oldest(self) -> bool:
        """Make room: the oldest segment goes, with what in it is not on its way."""
        for shelf in [*self._adopted, *([] if self._own is None else [self._own])]:
            for segment in list(shelf.segments):
                with suppress(OSError):  # what cannot be read cannot be counted either
                    segment.load()
                if not segment.size:
                    continue
                for index in segment.waiting():
                    self._lost(shelf, DropReason.SPOOL_FULL, segment.count(index))
                    segment.settle(index)
                self._drop(shelf, segment)
                return True
        return False

    def _drop(self, shelf: Shelf, segment: Segment) -> None:
        try:
            if segment.fd is not None:
                self._syncer.forget(segment.fd)
            shelf.drop(segment)
        except OSError as exc:
            self._trouble(exc)

    def _release(self, shelf: Shelf) -> None:
        """An adopted directory with nothing left goes."""
        if shelf in self._adopted and all(segment.settled() for segment in shelf.segments):
            self._adopted.remove(shelf)
            shelf.close()

    def _lost(self, shelf: Shelf, reason: DropReason, events: int) -> None:
        if shelf is self._own:
            self._losses.append((reason, events))
        else:
            self.recovered_dropped[reason] += events

    def _trouble(self, exc: Exception) -> None:
        self.error = f"spool {self._root}: {exc}"
