"""Appends envelopes to a file, back to back, as they lie in the log: it can be replayed."""

from __future__ import annotations

import fcntl
import os
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from callmeter.transports.protocol import Delivery, Outcome, Report, Sealed

_MAX_PENDING_BYTES = 16 * 2**20


class JsonlTransport:
    """Whole envelopes or nothing: ``poll`` writes all that was handed over and fsyncs once.

    Several processes may append to one file: writes happen under its lock. A write that fails
    (a full disk) is taken back and its envelopes are reported as RETRY.
    """

    name = "jsonl"

    def __init__(self, path: str) -> None:
        self.path = Path(path).expanduser().absolute()
        self._fd: int | None = None
        self._report: Report | None = None
        self._pending: deque[Sealed] = deque()
        self._bytes = 0
        self._closed = False

    def open(self, report: Report) -> None:
        """The file itself is opened by the first write, so one that cannot be made is a RETRY."""
        self._report = report

    def send(self, envelope: Sealed) -> bool:
        if self._closed or (self._pending and self._bytes >= _MAX_PENDING_BYTES):
            return False
        self._pending.append(envelope)
        self._bytes += len(envelope.data)
        return True

    def poll(self, timeout_s: float) -> None:
        if not self._pending:
            time.sleep(timeout_s)
            return
        error = None
        try:
            self._append(b"".join(envelope.data for envelope in self._pending))
        except OSError as exc:
            error = f"cannot write {self.path}: {exc.strerror or exc}"
        outcome = Outcome.DELIVERED if error is None else Outcome.RETRY
        self._bytes = 0
        batch, self._pending = self._pending, deque()
        for envelope in batch:
            if self._report is not None:
                self._report(Delivery(envelope, outcome, error=error))

    def close(self, timeout_s: float) -> None:
        if self._closed:
            return
        self._closed = True
        if self._pending:
            self.poll(0.0)
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _append(self, data: bytes) -> None:
        fd = self._open_file()
        with _locked(fd):
            size = os.fstat(fd).st_size
            # A process killed while writing left half a line: end it, or the next header would be
            # a part of it. The torn envelope itself is refused by the meter.
            if size and os.pread(fd, 1, size - 1) != b"\n":
                data = b"\n" + data
            try:
                _write_all(fd, data)
                os.fsync(fd)
            except OSError:
                os.ftruncate(fd, size)
                raise

    def _open_file(self) -> int:
        if self._fd is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(
                self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644
            )
        return self._fd


@contextmanager
def _locked(fd: int) -> Iterator[None]:
    fcntl.flock(fd, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.flock(fd, fcntl.LOCK_UN)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
