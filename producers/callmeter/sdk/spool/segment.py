"""An append-only file of frames, and which of them are settled. Deleted when all are."""

from __future__ import annotations

import os
from array import array
from pathlib import Path

from callmeter.sdk.spool import frames

#: Room for several envelopes of the largest size; small enough that a settled one goes soon.
SEGMENT_BYTES = 2 * 2**20


class Segment:
    """``load`` reads the index of one that another process left; a new one knows its own.

    The index is 17 bytes a frame: offset, seq, events, state. Methods raise ``OSError``.
    """

    def __init__(self, path: Path, size: int = 0) -> None:
        self.path = path
        #: Bytes that count; after a failed write the file may be longer.
        self.size = size
        self.loaded = size == 0
        #: Stretches that no checksum fits.
        self.broken = 0
        self.removed = False
        #: Events in frames that are not settled; 0 until loaded.
        self.events = 0
        self._fd: int | None = None
        self._offsets = array("I")
        self._seqs = array("Q")
        self._counts = array("H")
        self._settled = bytearray()
        self._unsettled = 0
        self._next = 0
        self._returned: list[int] = []
        self._highest = -1

    @property
    def fd(self) -> int | None:
        """The open file, if it is."""
        return self._fd

    def fileno(self) -> int:
        """The open file."""
        if self._fd is None:
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
            self._fd = os.open(self.path, flags, 0o600)
        return self._fd

    def load(self) -> None:
        """Read what is in the file."""
        if self.loaded:
            return
        content = self.path.read_bytes()
        self.size, self.loaded = len(content), True
        for frame in frames.scan(content):
            if frame is None:
                self.broken += 1
            else:
                self._note(frame.offset, frame.seq, frame.events)

    def append(self, seq: int, events: int, data: bytes) -> None:
        """Write a frame; after an ``OSError`` the segment is as before."""
        frame = frames.pack(seq, events, data)
        fd = self.fileno()
        written = 0
        try:
            while written < len(frame):
                written += os.pwrite(fd, memoryview(frame)[written:], self.size + written)
        except OSError:
            os.ftruncate(fd, self.size)
            raise
        self._note(self.size, seq, events)
        self.size += len(frame)

    def take(self) -> int | None:
        """The index of the oldest frame that is not handed out; None if there is none."""
        if self._returned:
            return self._returned.pop()
        if self._next < len(self._seqs):
            self._next += 1
            return self._next - 1
        return None

    def read(self, index: int) -> bytes | None:
        """The envelope of a frame; None if the disk gives back something else."""
        start = self._offsets[index]
        last = index + 1 == len(self._offsets)
        room = (self.size if last else self._offsets[index + 1]) - start
        content = os.pread(self.fileno(), room, start)
        head = frames.HEAD_BYTES
        if len(content) >= head:
            # A rotten stretch may lie between this frame and the next.
            content = content[: head + int.from_bytes(content[4:8], "little")]
        return frames.payload(content)

    def seq(self, index: int) -> int:
        return self._seqs[index]

    def count(self, index: int) -> int:
        """Events of a frame."""
        return self._counts[index]

    def give_back(self, index: int) -> None:
        """A frame was not delivered: it is the next one to take."""
        self._returned.append(index)

    def settle(self, index: int) -> None:
        """A frame was delivered, refused for good or given up."""
        if not self._settled[index]:
            self._settled[index] = 1
            self._unsettled -= 1
            self.events -= self._counts[index]

    def settled(self) -> bool:
        """Whether nothing here is still to be delivered."""
        return self.loaded and self._unsettled == 0

    def waiting(self) -> list[int]:
        """The frames that are neither settled nor handed out."""
        return [*self._returned, *range(self._next, len(self._seqs))]

    def events_below(self, seq: int) -> int:
        """Unsettled events of envelopes below ``seq``."""
        if seq > self._highest:
            return self.events
        rows = zip(self._seqs, self._counts, self._settled, strict=False)  # it grows meanwhile
        return sum(count for at, count, settled in rows if not settled and at < seq)

    def rewind(self) -> None:
        """Empty a settled segment, to be written again from its beginning."""
        os.ftruncate(self.fileno(), 0)
        self.size = self._next = 0
        self._offsets, self._seqs, self._counts = array("I"), array("Q"), array("H")
        self._settled = bytearray()

    def remove(self) -> None:
        """Delete the file; frames that are handed out are forgotten with it."""
        self.removed = True
        self.close()
        self.path.unlink(missing_ok=True)

    def close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _note(self, offset: int, seq: int, events: int) -> None:
        self._offsets.append(offset)
        self._seqs.append(seq)
        self._counts.append(events)
        self._settled.append(0)
        self._highest = max(self._highest, seq)
        self._unsettled += 1
        self.events += events
