"""Brings what was written to the disk itself, in a thread of its own.

A write survives the death of the process at once; ``fdatasync`` is for the death of the machine. It
may take long on a busy disk, and the shipper must not wait for it: the next events have an interval
to keep, too.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable


class Syncer:
    """Syncs files within ``interval_s`` after they were written. Errors are counted: a disk that
    cannot sync will refuse writes, and those are seen.
    """

    def __init__(self, interval_s: float, fdatasync: Callable[[int], None] = os.fdatasync) -> None:
        self._interval_s = interval_s
        self._fdatasync = fdatasync
        self._changed = threading.Condition()
        self._dirty: set[int] = set()
        self._busy = False
        self._closed = False
        self._thread: threading.Thread | None = None
        self.errors = 0

    def written(self, fd: int) -> None:
        """A file has changed."""
        with self._changed:
            if fd in self._dirty:
                return
            self._dirty.add(fd)
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="callmeter-spool", daemon=True
                )
                self._thread.start()
            self._changed.notify_all()

    def forget(self, fd: int) -> None:
        """A file is about to be closed: its number is not touched any more once this returns.

        A sync under way goes on, on a number of its own: nobody waits for a slow disk.
        """
        with self._changed:
            self._dirty.discard(fd)

    def sync(self) -> None:
        """Sync now what has changed, on the caller's thread."""
        with self._changed:
            dirty, self._dirty = self._dirty, set()
        for fd in dirty:
            self._sync(fd)

    def close(self) -> None:
        """Sync, and end the thread."""
        self.sync()
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._busy)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._dirty or self._closed)
                if self._closed:
                    return
                # Half the interval collects writes, the other half is the disk's.
                self._changed.wait_for(lambda: self._closed, self._interval_s / 2)
                if not self._dirty:
                    continue
                fd = self._own(self._dirty.pop())
                self._busy = True
            if fd is not None:
                self._sync(fd)
                os.close(fd)
            with self._changed:
                self._busy = False
                self._changed.notify_all()

    def _own(self, fd: int) -> int | None:
        try:
            return os.dup(fd)
        except OSError:  # no number left
            self.errors += 1
            return None

    def _sync(self, fd: int) -> None:
        try:
            self._fdatasync(fd)
        except OSError:
            self.errors += 1
