"""The Monitor's sender: a few background lanes, bounded in bytes, drained when the process ends."""

from __future__ import annotations

import atexit
import os
import threading
import time
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

from callmeter.compat.synalinks.lane import Lane, Troubles

LANES = 4
DEFAULT_MAX_QUEUE_BYTES = 16 * 2**20
SHUTDOWN_S = 5.0


@dataclass(frozen=True, slots=True)
class MonitorStats:
    """Counters of one endpoint, in traces: ``submitted == sent + failed + pending +
    sum(dropped.values())``. ``failed`` were tried once and not taken; the hook never tries again.
    ``pending_bytes`` never exceeds the bound.
    """

    submitted: int
    sent: int
    failed: int
    pending: int
    pending_bytes: int
    dropped: Mapping[str, int]


class Poster:
    """POSTs JSON to one endpoint. All of one call's events take the same lane, so they keep their
    order; different calls do not wait for each other.
    """

    def __init__(
        self, base: str, headers: Mapping[str, str], timeout_s: float, max_queue_bytes: int
    ) -> None:
        troubles = Troubles()
        self._lanes = [
            Lane(base, headers, timeout_s, max_queue_bytes // LANES, troubles) for _ in range(LANES)
        ]

    def submit(self, call_id: str, body: bytes) -> None:
        """Queue a trace; never blocks, never raises."""
        self._lanes[zlib.crc32(call_id.encode("utf-8", "surrogatepass")) % LANES].submit(body)

    def flush(self, timeout_s: float) -> bool:
        """Wait until everything is sent or given up; False if the time was too short."""
        deadline_s = time.monotonic() + timeout_s
        return all(lane.wait(deadline_s) for lane in self._lanes)

    def stats(self) -> MonitorStats:
        """The counters of all lanes."""
        counts = [lane.counts() for lane in self._lanes]
        reasons = sorted({reason for each in counts for reason in each.dropped})
        return MonitorStats(
            submitted=sum(each.submitted for each in counts),
            sent=sum(each.sent for each in counts),
            failed=sum(each.failed for each in counts),
            pending=sum(each.pending for each in counts),
            pending_bytes=sum(each.bytes for each in counts),
            dropped={r: sum(each.dropped.get(r, 0) for each in counts) for r in reasons},
        )

    def close(self, deadline_s: float) -> None:
        """Send what is queued until the deadline (monotonic), then take no more."""
        for lane in self._lanes:
            lane.close(deadline_s)

    def after_fork(self) -> None:
        """In a forked child: nothing of the parent's is sent twice."""
        for lane in self._lanes:
            lane.after_fork()


_Key = tuple[str, tuple[tuple[str, str], ...], float, int]


class _Posters:
    """One poster for each endpoint and setting: modules share connections, not one each."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.by_key: dict[_Key, Poster] = {}
        self.hooked = False


_posters = _Posters()


def poster_for(
    base: str, headers: Mapping[str, str], timeout_s: float, max_queue_bytes: int
) -> Poster:
    """The process's poster for this endpoint; closed when the process ends."""
    key = (base, tuple(sorted(headers.items())), timeout_s, max_queue_bytes)
    with _posters.lock:
        if not _posters.hooked:
            _posters.hooked = True
            atexit.register(close_all)
            os.register_at_fork(after_in_child=_in_child)
        poster = _posters.by_key.get(key)
        if poster is None:
            poster = _posters.by_key[key] = Poster(base, headers, timeout_s, max_queue_bytes)
        return poster


def close_all(timeout_s: float = SHUTDOWN_S) -> None:
    """Send what all posters hold, within the time for all of them together."""
    deadline_s = time.monotonic() + timeout_s
    with _posters.lock:
        posters = list(_posters.by_key.values())
        _posters.by_key.clear()
    for poster in posters:
        poster.close(deadline_s)


def _in_child() -> None:
    _posters.lock = threading.Lock()
    for poster in _posters.by_key.values():
        poster.after_fork()
