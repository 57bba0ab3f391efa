"""Runs of ``cost`` events: what ``reprice`` and ``bill import --book`` write, counted once.

A run is a source of its own. Its envelope 0 is a fence: when the store has it, it also has
everything that an earlier run of that number left in the log, for one source is one partition, in
order. If the fence was accepted the number was free; if it was a duplicate, an earlier run was cut
short, and the next number is tried. Only then are amounts computed from what is stored, so a run
that is repeated at any moment counts nothing twice
(docs/decisions/0011-repricing-by-corrections.md).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from callmeter._version import __version__
from callmeter.clock import SystemClock
from callmeter.errors import DataError, UnreachableError
from callmeter.replay.plan import Plan
from callmeter.schema.envelope import MAX_BYTES, Header, encode
from callmeter.schema.events import Annotation
from callmeter.transports.protocol import Sealed

if TYPE_CHECKING:
    from callmeter_sinks.clickhouse.store import Store
    from callmeter_sinks.progress import Arrived

#: Whether every amount that the ledger has of a source is in its table.
_COSTS_IN = """SELECT sum(costs) = (SELECT count() FROM costs WHERE (log_id, partition, origin) IN
  (SELECT log_id, partition, origin FROM envelopes
   WHERE source = {source:UUID} AND verdict = 'accepted'))
FROM envelopes WHERE source = {source:UUID} AND verdict = 'accepted'"""
#: One row once the ledger has the fence; a duplicate of it stands behind the one it repeats.
_FENCE = """SELECT countIf(verdict = 'accepted') FROM envelopes
WHERE source = {source:UUID} AND seq = 0 AND toUnixTimestamp64Micro(sent_at) = {sent:Int64}
HAVING count() > 0"""
_EVENTS = 400
#: Room for a header with texts at their limits.
_HEADER_ROOM = 8 * 1024
_LOOK_S = 0.1
_STALL_S = 120.0
_encode = msgspec.json.Encoder().encode


class CostRun:
    """One run's envelopes: the fence, then the amounts. The last one says so.

    The fence carries an annotation that says what is being done, for the project's audit.
    """

    def __init__(self, source: str, project: str, command: str) -> None:
        self.source = source
        self._project = project
        self._sdk = f"callmeter-{command}/{__version__}"
        self._seq = 0
        self._accepted = 0

    def fence(self, text: str, now_us: int) -> Sealed:
        """Envelope 0; ``now_us`` is its ``sent_us``, by which the ledger knows it again."""
        return self._seal([_encode(Annotation(ts_us=now_us, text=text))], now_us, last=False)

    def envelopes(self, lines: Iterable[bytes], now_us: int) -> Iterator[Sealed]:
        """The envelopes after the fence, of at most 256 KiB; without lines an empty close."""
        group: list[bytes] = []
        size = _HEADER_ROOM
        for line in lines:
            if group and (len(group) >= _EVENTS or size + len(line) + 1 > MAX_BYTES):
                yield self._seal(group, now_us, last=False)
                group, size = [], _HEADER_ROOM
            group.append(line)
            size += len(line) + 1
        yield self._seal(group, now_us, last=True)

    def _seal(self, lines: list[bytes], now_us: int, *, last: bool) -> Sealed:
        self._accepted += len(lines)
        header = Header(
            source=self.source,
            seq=self._seq,
            n=len(lines),
            sent_us=now_us,
            project=self._project,
            sdk=self._sdk,
            accepted=self._accepted,
            last=last,
        )
        self._seq += 1
        return Sealed(self.source, header.seq, header.n, encode(header, lines))


class CostWriter:
    """Sends runs and waits until the store has them. ``what`` names the amounts in an error.

    ``url`` is where envelopes go, ``healthy`` raises when that pipeline has ended. ``DataError``
    for what is refused, ``UnreachableError`` if the store has nothing new for long.
    """

    def __init__(
        self, store: Store, url: str, healthy: Callable[[], None], what: str, *, quiet: bool
    ) -> None:
        self._store = store
        self._url = url
        self._healthy = healthy
        self._what = what
        self._quiet = quiet
        self._clock = SystemClock()

    def fenced(self, run: CostRun, text: str) -> int | None:
        """Send the run's fence and wait for it; its ``sent_us``, None if the number was taken."""
        now_us = self._clock.now_us()
        fence = run.fence(text, now_us)
        self.send(Plan(partial(iter, [fence]), None, None, 1))
        found: list[tuple[int]] = []

        def stored() -> bool:
            found[:] = self._store.query(_FENCE, {"source": run.source, "sent": now_us}).rows
            return bool(found)

        self.wait(stored)
        return now_us if found[0][0] else None

    def send(self, plan: Plan) -> None:
        """Send it and wait until the store has it."""
        from callmeter.cli.replay import run_replay

        outcome = run_replay(
            plan, self._url, self._store, show_progress=not self._quiet, healthy=self._healthy
        )
        if outcome.sent.refused:
            raise DataError(f"{self._what} were refused: {outcome.sent.refused[0].error}")

    def wait(self, holds: Callable[[], bool]) -> None:
        """Until something holds that the pipeline is about to bring about."""
        deadline_s = self._clock.monotonic_s() + _STALL_S
        while not holds():
            self._healthy()
            if self._clock.monotonic_s() > deadline_s:
                raise UnreachableError(
                    f"the store has had nothing new for {_STALL_S:.0f} s: are a worker and a sink "
                    "running? Run the command again then: nothing is counted twice"
                )
            time.sleep(_LOOK_S)

    def arrived(self, source: str) -> Arrived:
        """What the ledger has of a run."""
        from callmeter_sinks.progress import arrived

        return arrived(self._store, [source])[source]

    def costs_in(self, source: str) -> bool:
        """Whether every amount that the ledger has of a run is in its table."""
        return bool(self._store.query(_COSTS_IN, {"source": source}).rows[0][0])
