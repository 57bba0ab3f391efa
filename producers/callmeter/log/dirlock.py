"""One owner of a data directory at a time, by ``flock``; the kernel lets go when the owner dies."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from callmeter.errors import CannotWriteError


class DirectoryLock:
    """Holds ``<directory>/<name>`` locked, with the owner's pid in it.

    ``acquire`` makes the directory if need be; ``CannotWriteError`` names the pid of the owner, or
    what is wrong with the directory. Not inherited: a forked child does not own the lock.
    """

    def __init__(self, directory: Path, name: str = "lock") -> None:
        self.path = directory / name
        self._fd: int | None = None

    def acquire(self) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as exc:
            raise CannotWriteError(f"{self.path.parent}: {exc.strerror}") from exc
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            os.close(fd)
            owner = self.owner()
            raise CannotWriteError(
                f"{self.path.parent} is in use by another callmeter"
                + (f" (pid {owner})" if owner else "")
                + ": stop that one, or give another --dir"
            ) from exc
        os.ftruncate(fd, 0)
        os.pwrite(fd, b"%d\n" % os.getpid(), 0)
        self._fd = fd

    def owner(self) -> int | None:
        """The pid written by whoever holds the lock, or None."""
        try:
            return int(self.path.read_text())
        except (OSError, ValueError):
            return None

    def held_by_another(self) -> bool:
        """Whether a living process holds the lock; does not wait and leaves nothing behind."""
        try:
            fd = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
        finally:
            os.close(fd)
        return False

    def release(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()
