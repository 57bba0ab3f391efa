"""The dead-letter file: one JSON line for each alert and target that could not be delivered."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Raw, Struct

from callmeter.errors import CannotWriteError, DataError

logger = logging.getLogger(__name__)


class DeadLetter(Struct, kw_only=True):
    """One line. ``kind`` and ``target`` say who should have had it; ``at_us``: when given up."""

    v: int = 1
    at_us: int
    target: str
    kind: Literal["webhook", "slack", "email"]
    reason: str
    tries: int
    alert: Raw


_decoder = msgspec.json.Decoder(DeadLetter)


class DeadLetterFile:
    """Appends; any thread. A line is on disk when ``write`` returns."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()

    def write(self, letter: DeadLetter) -> None:
        """Append one line. ``CannotWriteError`` if that cannot be done."""
        line = msgspec.json.encode(letter) + b"\n"
        try:
            with self._lock:
                fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
                try:
                    size = os.fstat(fd).st_size
                    # A kill in the middle of a line must not spoil the next one.
                    torn = size and os.pread(fd, 1, size - 1) != b"\n"
                    os.write(fd, b"\n" + line if torn else line)
                    os.fsync(fd)
                finally:
                    os.close(fd)
        except OSError as exc:
            raise CannotWriteError(f"{self.path}: {exc.strerror}") from exc


def read_letters(path: Path) -> Iterator[DeadLetter]:
    """The lines of a file, each alert and target once; ``DataError`` with the line that is none.

    A line that a kill cut short is passed over with a warning: its delivery was not marked as done,
    so it was written once more.
    """
    seen: set[tuple[str, bytes]] = set()
    try:
        lines = path.read_bytes().splitlines()
    except OSError as exc:
        raise DataError(f"{path}: cannot be read: {exc.strerror}") from exc
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            letter = _decoder.decode(line)
        except msgspec.DecodeError as exc:
            if "truncated" in str(exc):
                logger.warning("%s, line %d is cut short and left out", path, number)
                continue
            raise DataError(f"{path}, line {number}: no dead letter: {exc}") from exc
        key = (letter.target, bytes(letter.alert))
        if key not in seen:
            seen.add(key)
            yield letter
