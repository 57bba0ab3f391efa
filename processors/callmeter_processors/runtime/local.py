"""The embedded runtime: steps in this process, over the SQLite log (design 3)."""

from __future__ import annotations

import logging
import threading

from callmeter.clock import Clock, SystemClock
from callmeter.errors import CallmeterError, UsageError
from callmeter.log.record import NewRecord
from callmeter.log.sqlite_log import SqliteLog
from callmeter.schema.topics import BUDGETS
from callmeter_processors.runtime.definitions import POLL_S, Definitions
from callmeter_processors.runtime.partition import PartitionFold
from callmeter_processors.runtime.stats import RuntimeStats
from callmeter_processors.step import StepFactory

logger = logging.getLogger(__name__)
#: A partition without records is still ticked this often.
_IDLE_S = 1.0
#: No checkpoint waits longer than this, however slow the disk.
_MOST_S = 1.0


class LocalRuntime:
    """Runs every partition of ``source`` on one thread; or, with ``drain``, on the caller's.

    State, outputs and position move in one SQLite transaction, so a crash at any point is nothing
    but the time since the last checkpoint lost, to be read again. An exception in a step stops the
    runtime before anything of that checkpoint is written: it is kept in ``failed``, and ``stop``
    and ``drain`` raise it. A second runtime over the same log is refused at its first checkpoint.

    ``checkpoint_s`` and ``checkpoint_records``: a partition is checkpointed so long after its first
    record since the last one, or at so many; twice as long as the last transaction took, if that is
    longer. ``accept_loss``: go on where retention removed what was not
    read.
    """

    def __init__(
        self,
        log: SqliteLog,
        factory: StepFactory,
        *,
        source: str = "events",
        state: str = "meter-state",
        checkpoint_s: float = 0.1,
        checkpoint_records: int = 500,
        clock: Clock | None = None,
        accept_loss: bool = False,
    ) -> None:
        self._log = log
        self._factory = factory
        self._source = source
        self._state = state
        self._checkpoint_s = checkpoint_s
        self._checkpoint_records = checkpoint_records
        self._clock = clock or SystemClock()
        self._accept_loss = accept_loss
        self._definitions = Definitions()
        self._defined_s: float | None = None
        self._folds: dict[int, PartitionFold] = {}
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        # Held for each round: ``drain`` from another thread takes turns with the runtime's own.
        self._turn = threading.Lock()
        self.failed: BaseException | None = None
        self.stats = RuntimeStats()

    def start(self) -> None:
        """Starts the thread; ``UsageError`` if it runs, the failure if it has failed."""
        if self._thread is not None:
            raise UsageError("the runtime is running")
        self._raise_failure()
        self._stopping.clear()
        # A daemon: a host that ends without stop() must not hang; the log makes that harmless.
        self._thread = threading.Thread(target=self._run, name="callmeter-local", daemon=True)
        self._thread.start()

    def stop(self, timeout_s: float = 10.0) -> None:
        """Writes a last checkpoint, ends the thread, and raises what made the runtime fail."""
        thread = self._thread
        self._stopping.set()
        self._log.wake()
        if thread is not None:
            thread.join(timeout_s)
            if thread.is_alive():
                raise CallmeterError(f"the local runtime did not stop within {timeout_s} s")
            self._thread = None
        self._raise_failure()

    def drain(self) -> None:
        """Processes to the end of the log as it is now, checkpointed, and returns.

        May be called with or without the thread running, from any thread; raises what made the
        runtime fail.
        """
        ends = self._log.end_offsets(self._source)
        self._raise_failure()
        self._defined_s = None  # by the definitions as they are now
        try:
            for partition, end in ends.items():
                behind = True
                while behind:
                    with self._turn:
                        self._raise_failure()
                        self._read_definitions()
                        fold = self._fold(partition)
                        moved = fold.next < end and self._feed(fold)
                        behind = moved and fold.next < end
                        if not behind or fold.waiting >= self._checkpoint_records:
                            self._checkpoint(fold)
        except BaseException as exc:
            self._fail(exc)
            raise

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                with self._turn:
                    moved, wait_s = self._round()
                if not moved and not self._stopping.is_set():
                    since = {p: fold.next for p, fold in self._folds.items()}
                    self._log.wait(self._source, since, wait_s, stopping=self._stopping)
            with self._turn:
                for fold in self._folds.values():
                    self._checkpoint(fold)
        except BaseException as exc:
            self._fail(exc)
            logger.exception("the local runtime stopped")

    def _round(self) -> tuple[bool, float]:
        """Feeds and checkpoints each partition once: (whether any moved, seconds it may wait)."""
        self._raise_failure()
        self._read_definitions()
        moved = False
        self.stats.beat_s = self._clock.monotonic_s()
        self.stats.assigned = frozenset(range(self._log.partitions))
        wait_s = _IDLE_S
        now_us = self._clock.now_us()
        for partition, end in self._log.end_offsets(self._source).items():
            fold = self._fold(partition)
            self.stats.partitions[partition].end_offset = end
            if fold.next < end:
                moved = self._feed(fold) or moved
            # A disk that is slow to sync is asked less often: a third of the time at most.
            patience_s = max(self._checkpoint_s, min(2 * self.stats.last_checkpoint_s, _MOST_S))
            due_s = fold.waiting_since_s + patience_s - self._clock.monotonic_s()
            full = fold.waiting >= self._checkpoint_records
            if fold.tick_due(now_us):
                fold.measure()
                self._checkpoint(fold)
            elif full or (fold.waiting and due_s <= 0):
                self._checkpoint(fold)
            elif fold.waiting:
                wait_s = min(wait_s, max(due_s, 0.0))
        return moved, wait_s

    def _feed(self, fold: PartitionFold) -> bool:
        room = max(1, self._checkpoint_records - fold.waiting)
        records = self._log.read(self._source, fold.partition, fold.next, max_records=room)
        now_s = self._clock.monotonic_s()
        for record in records:
            if record.offset > fold.next:
                fold.jump(record.offset, f"are no longer in {self._log.path}")
            fold.process(record, now_s)
            if fold.heavy:
                self._checkpoint(fold)
        if not records:
            # The end is ahead, yet nothing is left to read: retention took all of it.
            fold.jump(self._log.end_offset(self._source, fold.partition), "are gone from the log")
        return True

    def _checkpoint(self, fold: PartitionFold) -> None:
        """A checkpoint is one transaction: rows, outputs and position, or none of them."""
        pending = fold.checkpoint(self._clock.now_us())
        if pending is None:
            return
        began_s = self._clock.monotonic_s()
        self._log.commit(
            self._state,
            fold.partition,
            rows=pending.changes.rows,
            outputs=[NewRecord(*output) for output in pending.changes.outputs],
            next_offset=pending.next_offset,
            expected_next=pending.expected_next,
        )
        fold.written(pending, self._clock.monotonic_s() - began_s, self._clock.now_us())

    def _read_definitions(self) -> None:
        now_s = self._clock.monotonic_s()
        if self._defined_s is None or now_s - self._defined_s >= POLL_S:
            self._defined_s = now_s
            self._definitions.update(self._log.rows(BUDGETS.name, 0))

    def _fold(self, partition: int) -> PartitionFold:
        fold = self._folds.get(partition)
        if fold is None:
            began_s = self._clock.monotonic_s()
            fold = self._folds[partition] = PartitionFold(
                partition,
                self._factory(self._log.log_id, partition),
                self._log.rows(self._state, partition),
                stored_next=self._log.position(self._state, partition),
                first_offset=self._log.first_offset(self._source, partition),
                stats=self.stats,
                definitions=self._definitions,
                partitions=self._log.partitions,
                accept_loss=self._accept_loss,
            )
            restore_s = self._clock.monotonic_s() - began_s
            self.stats.partitions[partition].restore_s = restore_s
        return fold

    def _fail(self, exc: BaseException) -> None:
        if self.failed is None:
            self.failed = exc
        # What a failed step holds is of no use to anybody: a restart restores from the log.
        self._folds = {}

    def _raise_failure(self) -> None:
        if self.failed is not None:
            raise self.failed
