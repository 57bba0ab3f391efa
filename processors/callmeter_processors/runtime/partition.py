"""One owned partition in memory: what both runtimes do the same way, without I/O."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

from callmeter.errors import DataError
from callmeter.log.position import POSITION_KEY
from callmeter.log.record import LogRecord
from callmeter.schema.budgets import Budget
from callmeter_processors.runtime.definitions import Definitions
from callmeter_processors.runtime.stats import PartitionStats, RuntimeStats
from callmeter_processors.step import Checkpoint, Configurable, Measured, Step

logger = logging.getLogger(__name__)
_TICK_US = 1_000_000
_SECOND_US = 1_000_000
#: A checkpoint is written at so many bytes of records, whatever else says when: it bounds what a
#: transaction carries, and what is held for it.
CHECKPOINT_BYTES = 16 * 2**20


class HoleError(DataError):
    """Records that were never processed are no longer in the log."""


@dataclass(frozen=True, slots=True)
class Pending:
    """A checkpoint to be written: the changes, and the position before and after."""

    changes: Checkpoint
    next_offset: int
    expected_next: int | None


class PartitionFold:
    """A step and how far it has read. Used from one thread.

    ``stored_next`` is the position as the log has it (None: none yet), ``first_offset`` where to
    begin without one. A step that is ``Configurable`` is told of ``definitions``; ``partitions`` is
    the prefix's N. After ``checkpoint`` either ``written`` is called, or the fold is thrown
    away.
    """

    def __init__(
        self,
        partition: int,
        step: Step,
        rows: Mapping[bytes, bytes],
        *,
        stored_next: int | None,
        first_offset: int,
        stats: RuntimeStats,
        definitions: Definitions | None = None,
        partitions: int = 0,
        accept_loss: bool = False,
    ) -> None:
        self.partition = partition
        self.next = first_offset if stored_next is None else stored_next
        self.waiting = 0
        self.waiting_since_s = 0.0
        self._waiting_bytes = 0
        self._step = step
        self._stored_next = stored_next
        self._stats = stats
        self._accept_loss = accept_loss
        self._ticked_us: int | None = None
        self._definitions = definitions if isinstance(step, Configurable) else None
        self._partitions = partitions
        self._known: tuple[Budget, ...] | None = None
        #: Log times of the records since the last checkpoint.
        self._arrived_us: list[int] = []
        step.restore({key: value for key, value in rows.items() if key != POSITION_KEY})
        self._configure()
        self._own = PartitionStats(next_offset=self.next, restored_rows=len(rows))
        stats.partitions[partition] = self._own

    def process(self, record: LogRecord, now_s: float) -> bool:
        """Folds the record, or skips it (False) if it is below the position.

        The caller has made sure that nothing between the position and the record is left to read.
        """
        if record.offset < self.next:
            self._stats.skipped += 1
            return False
        if record.offset > self.next:
            raise AssertionError(f"offset {record.offset} came where {self.next} was due")
        self._configure()
        self._step.process(record)
        self.next = record.offset + 1
        if not self.waiting:
            self.waiting_since_s = now_s
        self.waiting += 1
        self._arrived_us.append(record.timestamp_us)
        stats = self._stats
        stats.records += 1
        if record.value is not None:
            self._waiting_bytes += len(record.value)
            stats.bytes += len(record.value)
        return True

    @property
    def heavy(self) -> bool:
        """Whether a checkpoint is due for the bytes of what was read."""
        return self._waiting_bytes >= CHECKPOINT_BYTES

    def jump(self, offset: int, why: str) -> None:
        """Goes on at ``offset`` because no record below it can be read any more.

        ``HoleError`` unless loss was accepted; accepted loss is logged and counted.
        """
        missing = offset - self.next
        message = (
            f"partition {self.partition}: offsets {self.next} to {offset - 1} were not processed "
            f"and {why}"
        )
        if not self._accept_loss:
            raise HoleError(f"{message}; to go on without them: --accept-loss")
        logger.error("%s; going on without them, as told", message)
        self._stats.lost += missing
        self.next = offset

    def pass_over(self, offset: int) -> None:
        """Goes on at ``offset`` because what lies between holds no record (transaction markers)."""
        self.next = max(self.next, offset)

    def checkpoint(self, now_us: int) -> Pending | None:
        """What there is to be written now; None if nothing moved and nothing changed."""
        self._configure()
        if self._ticked_us is None or now_us - self._ticked_us >= _TICK_US:
            self._step.tick(now_us)
            self._ticked_us = now_us
        changes = self._step.checkpoint()
        if not (self.waiting or changes.rows or changes.outputs):
            return None
        return Pending(changes, self.next, self._stored_next)

    def _configure(self) -> None:
        """Tells the step of definitions that are new to it."""
        if self._definitions is None:
            return
        budgets = self._definitions.current()
        if budgets is not self._known and isinstance(self._step, Configurable):
            self._known = budgets
            self._step.configure(budgets, self.next, self._partitions)

    def tick_due(self, now_us: int) -> bool:
        """Whether a second has passed since the last tick: idle partitions are checkpointed too."""
        return self._ticked_us is None or now_us - self._ticked_us >= _TICK_US

    def written(self, pending: Pending, seconds: float, now_us: int) -> None:
        """The checkpoint is in the log, at ``now_us``; writing it took so long."""
        self._stored_next = pending.next_offset
        self.waiting = self._waiting_bytes = 0
        stats = self._stats
        changes = pending.changes
        stats.checkpoints += 1
        stats.checkpoint_s += seconds
        stats.last_checkpoint_s = seconds
        stats.transaction.add(seconds)
        stats.size.add(_size(changes))
        stats.rows += len(changes.rows)
        stats.outputs += len(changes.outputs)
        stats.counts.update(changes.counts)
        arrived_us, self._arrived_us = self._arrived_us, []
        for at_us in arrived_us:
            stats.latency.add(max(0, now_us - at_us) / _SECOND_US)
        own = self._own
        own.next_offset = pending.next_offset
        own.processed_us = max([own.processed_us, *arrived_us])

    def measure(self) -> None:
        """Takes down what the step says of itself."""
        if isinstance(self._step, Measured):
            self._own.figures = self._step.figures()


def _size(changes: Checkpoint) -> int:
    """Bytes of keys and values, before compression; the position is not counted."""
    rows = sum(len(key) + len(value or b"") for key, value in changes.rows.items())
    return rows + sum(len(out.key) + len(out.value or b"") for out in changes.outputs)
