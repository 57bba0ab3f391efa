"""One source's directory in the spool: its segments, and the lock that says whose it is.

    <spool>/<source>/lock, 00000000.seg, 00000001.seg, …

The owner writes; when it has died, the kernel has let go of the lock and whoever takes it re-sends
what is left, under the source's own name, and removes the directory. Nobody ever appends to what
another process wrote.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

from callmeter.errors import CannotWriteError
from callmeter.log.dirlock import DirectoryLock
from callmeter.schema.envelope import is_uuid
from callmeter.sdk.spool.segment import SEGMENT_BYTES, Segment

_SUFFIX = ".seg"
#: A directory that its maker has not finished after so long has no maker any more.
_STALE_S = 60.0


class Shelf:
    """The segments of one source, oldest first. ``OSError`` is the caller's to handle."""

    def __init__(self, path: Path, source: str, lock: DirectoryLock) -> None:
        self.path = path
        self.source = source
        self.segments: list[Segment] = []
        self._lock = lock
        self._made = 0

    def append(self, seq: int, events: int, data: bytes) -> Segment:
        """Write an envelope into the newest segment, or a new one if that is full."""
        if not self.segments or self.segments[-1].size >= SEGMENT_BYTES:
            self.segments.append(Segment(self.path / f"{self._made:08d}{_SUFFIX}"))
            self._made += 1
        self.segments[-1].append(seq, events, data)
        return self.segments[-1]

    def drop(self, segment: Segment) -> None:
        """Delete a segment."""
        if segment in self.segments:
            self.segments.remove(segment)
        segment.remove()

    def disk_bytes(self) -> int:
        return sum(segment.size for segment in self.segments)

    def close(self) -> None:
        """Let go; an empty directory is removed first, while it is still ours."""
        for segment in list(self.segments):
            segment.close()
        if all(segment.settled() for segment in self.segments):
            with suppress(OSError):  # what cannot be removed is sent again: once behind the meter
                for segment in list(self.segments):
                    self.drop(segment)
                (self.path / "lock").unlink(missing_ok=True)
                self.path.rmdir()
        self._lock.release()

    def forked(self) -> None:
        """In a forked child: give up the parent's files and, with it, this half of its lock."""
        for segment in self.segments:
            segment.close()
        self._lock.release()


def make(root: Path, source: str) -> Shelf:
    """A new directory, locked before anybody can see it. ``OSError`` or ``CannotWriteError``."""
    unseen, path = root / f".{source}", root / source
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    lock = DirectoryLock(unseen)
    lock.acquire()
    try:
        unseen.rename(path)
    except OSError:
        lock.release()
        raise
    return Shelf(path, source, lock)


def adopt(root: Path, own: str) -> list[Shelf]:
    """Take over the directories whose owners are gone, oldest source first."""
    try:
        names = sorted(entry.name for entry in os.scandir(root) if entry.is_dir())
    except OSError:
        return []  # there is no spool yet, or none that can be read
    found = []
    for name in names:
        if name.startswith(".") and is_uuid(name[1:]):
            _sweep(root / name)
        elif is_uuid(name) and name != own and (shelf := _adopt_one(root / name)) is not None:
            found.append(shelf)
    return found


def _adopt_one(path: Path) -> Shelf | None:
    lock = DirectoryLock(path)
    try:
        lock.acquire()
    except CannotWriteError:
        return None  # its owner lives, or somebody else was first
    shelf = Shelf(path, path.name, lock)
    try:
        for file in sorted(path.glob(f"*{_SUFFIX}")):
            segment = Segment(file, file.stat().st_size)
            if segment.size:
                shelf.segments.append(segment)
            else:
                segment.remove()
    except OSError:
        lock.release()
        return None
    if not shelf.segments:
        shelf.close()
        return None
    return shelf


def _sweep(path: Path) -> None:
    """A maker that died between making a directory and naming it left nothing in it."""
    with suppress(OSError):  # somebody else sweeps too
        if time.time() - path.stat().st_mtime > _STALE_S:
            (path / "lock").unlink(missing_ok=True)
            path.rmdir()
