"""One owner of a chDB directory, and the phantom repair before the engine opens it."""

from __future__ import annotations

import fcntl
import os
import re
from pathlib import Path

from callmeter.errors import CannotWriteError
from callmeter.log.dirlock import DirectoryLock
from callmeter_sinks.clickhouse.phantom import Phantom, repair

LOCK_NAME = "callmeter.lock"
_PID = re.compile(r"PID:\s*(\d+)")


class OwnedDirectory:
    """Owns a chDB directory from ``acquire`` to ``release``.

    Two locks, because they answer two questions. ``callmeter.lock`` is held as long as the store is
    open: it keeps other callmeters away. ``status`` is the engine's own lock, which it takes when
    it opens; it is held here only during the repair, so that a directory that some other chDB
    program has open is never touched.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = DirectoryLock(path, LOCK_NAME)

    def acquire(self) -> list[Phantom]:
        """Lock, repair, return what the repair dropped. ``CannotWriteError`` names the owner."""
        self._lock.acquire()
        try:
            return self._repair()
        except BaseException:
            self._lock.release()
            raise

    def release(self) -> None:
        self._lock.release()

    def _repair(self) -> list[Phantom]:
        status = self.path / "status"
        try:
            fd = os.open(status, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        except OSError as exc:
            raise CannotWriteError(f"{status}: {exc.strerror}") from exc
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as exc:
                owner = _PID.search(os.pread(fd, 4096, 0).decode("utf-8", "replace"))
                raise CannotWriteError(
                    f"{self.path} is open in another chDB process"
                    + (f" (pid {owner[1]})" if owner else "")
                    + ": stop that one, or give another directory"
                ) from exc
            return repair(self.path)
        finally:
            os.close(fd)
