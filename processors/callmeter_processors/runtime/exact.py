"""An exact partition over Kafka: state, outputs and position in one transaction (design 7).

Nothing here knows Faust: who owns a partition, and which records come, is told from outside. What
is told may be stale or incomplete; what is written is right nevertheless, because

- starting the transactional producer fences every earlier owner before the state is read,
- the state that is read is all that was ever committed,
- a record below the position is skipped, and what lies between the position and a record is read
  from the log before the record is processed.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from callmeter.clock import Clock
from callmeter.errors import DataError, UnreachableError
from callmeter.log.kafka_settings import KafkaSettings
from callmeter.log.kafka_state import open_partition
from callmeter.log.kafka_transaction import FencedError, TransactionWriter
from callmeter.log.position import POSITION_KEY, decode_position, encode_position
from callmeter.log.record import LogRecord, NewRecord
from callmeter_processors.runtime.definitions import Definitions
from callmeter_processors.runtime.partition import PartitionFold
from callmeter_processors.runtime.stats import RuntimeStats
from callmeter_processors.step import StepFactory

logger = logging.getLogger(__name__)
#: How long records may be in the log without coming before they are read from it.
PATIENCE_S = 5.0
#: Records read from the log between two checkpoints.
HEAL_RECORDS = 500
#: Folding stops so often for the producers of other partitions and the timers, on the same loop.
_SLICE_S = 0.005


@dataclass(frozen=True, slots=True)
class Stage:
    """What one kind of worker reads, keeps and is called: the meter, the watch.

    ``partitions`` is the prefix's N. The transactional id of a partition is
    ``<prefix>.<name>.<partition>``: two stages over one prefix need two names. ``compression`` is
    of what is written: zstd, lz4, gzip or None.
    """

    kafka: KafkaSettings
    log_id: str
    partitions: int
    name: str = "meter"
    source: str = "events"
    state: str = "meter-state"
    accept_loss: bool = False
    definitions: Definitions | None = None
    transaction_timeout_s: float = 20.0
    compression: str | None = "zstd"


class ExactPartition:
    """One owned partition: made by ``open``, thrown away after any error.

    Used from one task at a time. Errors: ``FencedError`` (another worker has it now),
    ``UnreachableError`` (unknown whether the last checkpoint was written: open again and see),
    ``HoleError``, ``DataError`` and what the step raises (stop the worker).
    """

    def __init__(
        self,
        stage: Stage,
        *,
        fold: PartitionFold,
        writer: TransactionWriter,
        clock: Clock,
        stats: RuntimeStats,
        outdated: frozenset[bytes],
        turn: asyncio.Lock,
    ) -> None:
        self._stage = stage
        self._fold = fold
        self._writer = writer
        self._clock = clock
        self._stats = stats
        self._outdated = outdated
        self._turn = turn
        self._moved_s = clock.monotonic_s()

    @classmethod
    async def open(
        cls,
        stage: Stage,
        factory: StepFactory,
        partition: int,
        clock: Clock,
        stats: RuntimeStats,
        *,
        turn: asyncio.Lock | None = None,
    ) -> Self:
        """Fences every earlier owner, then restores: in this order, or it would not be all.

        Of the partitions that share a ``turn`` one folds at a time, while others write: going back
        and forth between them costs a quarter more, since a processor's cache holds the rows of
        one (docs/decisions/0021).
        """
        began_s = time.monotonic()
        writer = TransactionWriter(
            stage.kafka,
            f"{stage.kafka.prefix}.{stage.name}.{partition}",
            partitions=stage.partitions,
            timeout_s=stage.transaction_timeout_s,
            compression=stage.compression,
        )
        try:
            await writer.start()
            async with open_partition(stage.kafka, stage.state, partition) as state:
                rows = await state.rows()
            async with open_partition(stage.kafka, stage.source, partition) as source:
                first, end = await source.offsets()
            position = rows.get(POSITION_KEY)
            stored_next = None if position is None else decode_position(position, stage.log_id)
            outdated: frozenset[bytes] = frozenset()
            if position is not None and stored_next is None:
                logger.warning(
                    "partition %d: state of another log is ignored and will be removed",
                    partition,
                )
                outdated, rows = frozenset(rows), {}
            if stored_next is not None and stored_next > end:
                raise DataError(
                    f"partition {partition} of {stage.source} ends at {end}, but {stored_next} "
                    "were processed: the topic was made anew; apply topics under another prefix"
                )
            fold = PartitionFold(
                partition,
                factory(stage.log_id, partition),
                rows,
                stored_next=stored_next,
                first_offset=first,
                stats=stats,
                definitions=stage.definitions,
                partitions=stage.partitions,
                accept_loss=stage.accept_loss,
            )
        except BaseException:
            await writer.stop()
            raise
        restore_s = time.monotonic() - began_s
        stats.partitions[partition].restore_s = restore_s
        logger.info(
            "partition %d: %d rows restored, next offset %d, %.2f s",
            partition, len(rows), fold.next, restore_s,
        )  # fmt: skip
        return cls(
            stage,
            fold=fold,
            writer=writer,
            clock=clock,
            stats=stats,
            outdated=outdated,
            turn=turn or asyncio.Lock(),
        )

    async def process(self, records: Sequence[LogRecord]) -> None:
        """Folds records that are in order of offsets, and writes a checkpoint."""
        self._moved_s = self._clock.monotonic_s()
        done = 0
        while done < len(records):
            if records[done].offset > self._fold.next:
                await self._read_log(records[done].offset)
            async with self._turn:
                done = await self._fold_from(records, done)
            await self.checkpoint()

    async def _fold_from(self, records: Sequence[LogRecord], at: int) -> int:
        """Folds on from ``records[at]``, to where a checkpoint is due or a record is missing."""
        fold, clock = self._fold, self._clock
        until_s = clock.monotonic_s() + _SLICE_S
        while at < len(records) and records[at].offset <= fold.next and not fold.heavy:
            now_s = clock.monotonic_s()
            if now_s > until_s:
                await asyncio.sleep(0)
                until_s = clock.monotonic_s() + _SLICE_S
            fold.process(records[at], now_s)
            at += 1
        return at

    async def idle(self, end: int | None) -> None:
        """Once a second: ticks, and writes only if the step has something to write.

        ``end`` is the source's end as the consumer knows it. If no record has come for a while
        though there are some, the consumer has left them out: they are read from the log.
        """
        behind = end is not None and end > self._fold.next
        if behind and self._clock.monotonic_s() - self._moved_s > PATIENCE_S:
            await self._read_log(end or 0)
            self._moved_s = self._clock.monotonic_s()
        if self._fold.waiting or self._fold.tick_due(self._clock.now_us()):
            await self.checkpoint()

    async def checkpoint(self) -> None:
        """One transaction: changed rows, position, outputs. Nothing is acknowledged before it."""
        pending = self._fold.checkpoint(self._clock.now_us())
        if pending is None:
            return
        began_s = self._clock.monotonic_s()
        partition, state = self._fold.partition, self._stage.state
        rows = pending.changes.rows
        removed = self._outdated - rows.keys() - {POSITION_KEY}
        position = encode_position(self._stage.log_id, pending.next_offset)
        records = [
            *(NewRecord(state, key, None, partition) for key in removed),
            *(NewRecord(state, key, value, partition) for key, value in rows.items()),
            NewRecord(state, POSITION_KEY, position, partition),
            *(NewRecord(*output) for output in pending.changes.outputs),
        ]
        try:
            await self._writer.commit(records)
        except FencedError:
            self._stats.fenced += 1
            raise
        except UnreachableError:
            self._stats.failed += 1
            raise
        self._outdated = frozenset()
        self._fold.written(pending, self._clock.monotonic_s() - began_s, self._clock.now_us())

    def measure(self) -> None:
        """Takes down what the step says of itself; see ``Measured``."""
        self._fold.measure()

    async def close(self) -> None:
        """Lets go of the producer; what was not committed never existed."""
        await self._writer.stop()

    async def _read_log(self, end: int) -> None:
        """Processes from the log what lies between the position and ``end``.

        A consumer group may leave records out when partitions move; transaction markers take
        offsets as well, and are passed over. What retention removed is a hole.
        """
        fold = self._fold
        async with open_partition(self._stage.kafka, self._stage.source, fold.partition) as source:
            first, _ = await source.offsets()
            if first > fold.next:
                fold.jump(min(first, end), "retention has removed them")
            async for record in source.read(fold.next, end):
                fold.pass_over(record.offset)
                fold.process(record, self._clock.monotonic_s())
                self._stats.healed += 1
                if fold.waiting >= HEAL_RECORDS or fold.heavy:
                    await self.checkpoint()
        fold.pass_over(end)
