"""The sink: gives partitions to writers, in one thread, and says how far it is."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Mapping

from callmeter.clock import Clock, SystemClock
from callmeter.errors import UnreachableError
from callmeter_sinks.backoff import Patience
from callmeter_sinks.clickhouse.shards import Shards
from callmeter_sinks.clickhouse.store import Store
from callmeter_sinks.faults import FencedError, StoppedError
from callmeter_sinks.intents import Books
from callmeter_sinks.ranges import RangeLimits
from callmeter_sinks.source import MeteredSource
from callmeter_sinks.stats import SinkStats, add
from callmeter_sinks.streams import STREAMS
from callmeter_sinks.writer import PartitionWriter

_log = logging.getLogger("callmeter.sink")
_IDLE_S = 1.0
_LAG_EVERY_S = 5.0
_FENCED_S = 10.0
#: A partition without news for so long is noted to be at rest.
_REST_S = 60.0


class Sink:
    """Moves one topic into the store, exactly once; which one is said by the source.

    Of several shards a partition's writer sees the one that has it.
    ``run`` blocks until ``stop`` (from any thread or a signal handler), or ``end``, which has it
    drain first; ``drain`` blocks until everything is stored that was in the log when it began. One
    call of ``run`` or ``drain`` per object. Raises what stops a
    sink: see ``callmeter_sinks.faults``, and ``PermanentStoreError``. A store or log that is away
    is waited for, with bounded memory.

    >>> sink = Sink(open_store("chdb:./store"), SqliteSource(log))  # doctest: +SKIP
    >>> sink.drain().events  # doctest: +SKIP
    """

    def __init__(
        self,
        store: Store | Shards,
        source: MeteredSource,
        *,
        name: str = "callmeter",
        limits: RangeLimits | None = None,
        max_buffered_bytes: int = 128 * 2**20,
        accept_loss: bool = False,
        clock: Clock | None = None,
        first_retry_s: float = 0.1,
    ) -> None:
        self.topic = source.topic
        self._shards = store if isinstance(store, Shards) else Shards([store])
        self._source = source
        self._stream = STREAMS[source.topic]
        self._name = name
        self._limits = limits or self._stream.limits
        self._max_buffered_bytes = max_buffered_bytes
        self._accept_loss = accept_loss
        self._clock = clock or SystemClock()
        self._stop = threading.Event()
        self._ending = threading.Event()
        self._patience = Patience(self._stop, first_s=first_retry_s, meanwhile=self._while_away)
        self._writers: dict[int, PartitionWriter] = {}
        self._epochs: dict[int, int] = {}  # the assignment a partition was last taken under
        self._again_at_s: dict[int, float] = {}  # when a partition lost to another may be claimed
        # A small insert costs the engine about as much as a middling one (some twenty views), so
        # ranges that are not full wait as long as the last round of inserts took: half the time
        # at most is spent on a trickle, and the more partitions, the larger the ranges.
        self._rest_until_s = 0.0
        self._gone = SinkStats()  # what writers did that are no more
        self._lag: dict[int, int] = {}
        self._lag_at_s = 0.0

    def run(self) -> SinkStats:
        """Insert what comes until ``stop``; then what is buffered of whole checkpoints."""
        while not self._stop.is_set():
            if self._ending.is_set():
                return self.drain()
            self._round({})
        return self._finish()

    def drain(self) -> SinkStats:
        """Insert everything up to the log's end as it is now, of the partitions the source gives.

        A group gives what its members leave over, dead ones too for a while: read a whole topic.
        """
        ends: dict[int, int] = {}
        while not self._stop.is_set():
            try:
                for partition in self._source.assignment():
                    if partition not in ends:
                        ends[partition] = self._source.end_offset(partition)
                if ends and self._drained(ends):
                    break
            except UnreachableError as exc:
                _log.warning("the log is away: %s", exc)
                self._stop.wait(_IDLE_S)
                continue
            self._round(ends)
        return self._finish()

    def stop(self) -> None:
        """End ``run`` or ``drain`` soon; an insert that is under way is let end."""
        self._stop.set()
        self._source.wake()

    def end(self) -> None:
        """Have ``run`` return once it has inserted what the log has by now."""
        self._ending.set()
        self._source.wake()

    @property
    def stats(self) -> SinkStats:
        """A snapshot; may be read from any thread."""
        total = SinkStats(**{**vars(self._gone), "lag": dict(self._lag)})
        for writer in list(self._writers.values()):
            add(total, writer.stats)
            total.buffered_bytes += writer.buffered_bytes
        total.retries = self._patience.retries
        total.waiting_for = self._patience.waiting_for
        return total

    # One round: assignment, then each partition is read and, if due, written.

    def _round(self, ends: Mapping[int, int]) -> None:
        moved = False
        wait_s = _IDLE_S
        try:
            self._follow_assignment()
            spent_s = 0.0
            for partition, writer in list(self._writers.items()):
                now_s = self._clock.monotonic_s()
                moved |= writer.fill(now_s) > 0
                due_s = writer.due_in_s(now_s)
                last = self._at(writer, ends)
                if due_s is not None and not writer.pressing:
                    due_s = max(due_s, self._rest_until_s - now_s)
                if due_s == 0.0 or (last and writer.buffered):
                    self._write(partition, writer, everything=last)
                    spent_s += self._clock.monotonic_s() - now_s
                    moved = True
                elif due_s is not None:
                    wait_s = min(wait_s, due_s)
                else:
                    writer.rest(now_s, _REST_S)
            if spent_s:
                self._rest_until_s = self._clock.monotonic_s() + spent_s
            self._relieve()
            self._measure_lag()
            if not moved:
                positions = {p: w.position for p, w in self._writers.items()}
                self._source.wait(positions, wait_s)
        except UnreachableError as exc:
            _log.warning("the log is away: %s", exc)
            self._stop.wait(_IDLE_S)
        except StoppedError as exc:
            if not self._stop.is_set():
                _log.info("%s", exc)

    def _follow_assignment(self) -> None:
        assigned = self._source.assignment()
        for partition in [p for p in self._writers if assigned.get(p) != self._epochs[p]]:
            self._drop(partition)
        begun = self._source.begun(set(assigned) - self._writers.keys())
        for partition, epoch in assigned.items():
            if self._stream.quiet and partition not in self._writers and partition not in begun:
                continue
            waits = self._clock.monotonic_s() < self._again_at_s.get(partition, 0.0)
            known = partition in self._writers or (waits and self._epochs.get(partition) == epoch)
            if known or self._stop.is_set():
                continue
            store = self._shards.of(partition)
            writer = PartitionWriter(
                partition,
                self._source,
                store,
                Books(store, self._name, self.topic),
                limits=self._limits,
                patience=self._patience,
                clock=self._clock,
                stop=self._stop,
                accept_loss=self._accept_loss,
            )
            try:
                writer.take_over()
            except FencedError as exc:
                self._fenced(partition, epoch, exc)
                continue
            self._writers[partition] = writer
            self._epochs[partition] = epoch

    def _write(self, partition: int, writer: PartitionWriter, *, everything: bool = False) -> None:
        try:
            writer.write(self._clock.monotonic_s(), everything=everything)
        except FencedError as exc:
            self._fenced(partition, self._epochs[partition], exc)
        except (UnreachableError, StoppedError):
            # The log or the partition went away in the middle: a new writer will take over.
            self._drop(partition)
            raise
        else:
            self._source.report({partition: writer.position})

    def _fenced(self, partition: int, epoch: int, exc: FencedError) -> None:
        """Leave a partition to its new owner; if the group still says it is ours, claim it later.

        The pause lets a group settle, so that two members do not fence each other for long; whoever
        claims when, it is exactly once.
        """
        if not self._source.shared:
            raise exc
        _log.warning("%s", exc)
        self._gone.fenced += 1
        self._drop(partition)
        self._epochs[partition] = epoch
        self._again_at_s[partition] = self._clock.monotonic_s() + _FENCED_S

    def _relieve(self) -> None:
        """Keep the sum of all buffers bounded: the largest goes first, whole or not."""
        while self._writers:
            if sum(w.buffered_bytes for w in self._writers.values()) < self._max_buffered_bytes:
                return
            partition, writer = max(self._writers.items(), key=lambda item: item[1].buffered_bytes)
            self._write(partition, writer)

    def _at(self, writer: PartitionWriter, ends: Mapping[int, int]) -> bool:
        end = ends.get(writer.partition)
        return end is not None and self._source.reached(writer.partition, writer.position, end)

    def _drained(self, ends: Mapping[int, int]) -> bool:
        """Whether every partition that is still ours is stored up to its end."""
        assigned = self._source.assignment()
        ours = [p for p in ends if p in assigned and (ends[p] or not self._stream.quiet)]
        return all(
            p in self._writers
            and not self._writers[p].buffered
            and self._at(self._writers[p], ends)
            for p in ours
        )

    def _measure_lag(self) -> None:
        now_s = time.monotonic()
        if now_s - self._lag_at_s < _LAG_EVERY_S:
            return
        self._lag_at_s = now_s
        self._lag = {
            p: max(0, self._source.end_offset(p) - w.position) for p, w in self._writers.items()
        }

    def _while_away(self) -> None:
        """The log grows while the store is waited for: whoever looks at the lag should see it."""
        with contextlib.suppress(UnreachableError):  # the log is away too: the lag is unknown
            self._measure_lag()

    def _drop(self, partition: int) -> None:
        writer = self._writers.pop(partition, None)
        if writer is not None:
            add(self._gone, writer.stats)

    def _finish(self) -> SinkStats:
        """Insert whole checkpoints if the store answers at once; the next start reads the rest."""
        for partition, writer in list(self._writers.items()):
            try:
                if writer.due_in_s(self._clock.monotonic_s()) is not None:
                    self._write(partition, writer)
                if partition in self._writers:  # and was not lost to another just now
                    writer.rest(self._clock.monotonic_s())
            except (UnreachableError, StoppedError) as exc:
                _log.warning("partition %d is left for the next start: %s", partition, exc)
            self._drop(partition)
        return self.stats
