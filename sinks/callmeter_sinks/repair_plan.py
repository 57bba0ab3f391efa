"""What a repair would rebuild: ranges of origins that the log still holds whole.

Origins are offsets of the topic ``events``, the numbers that ``verify`` and ``gaps`` name. A plan
reads the log from its beginning, changes nothing, and widens what was asked for to whole
checkpoints of the meter, because control totals and deltas are of those.
"""

# ruff: noqa: S608 - only text of this module is put together; every value is bound

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime

from callmeter.errors import EXIT_INCOMPLETE, CallmeterError, UsageError
from callmeter_sinks.clickhouse.store import Store
from callmeter_sinks.faults import OriginBreakError
from callmeter_sinks.origins import OriginSequence
from callmeter_sinks.queries.dimensions import Binding, Period, epoch_us
from callmeter_sinks.rebuild import READ_BYTES, READ_RECORDS
from callmeter_sinks.rows import ForeignRecordError, Metered, parse
from callmeter_sinks.source import MeteredSource

_MINUTE = re.compile(rb'^\{"minute":(\d+)', re.MULTILINE)
_MINUTES_A_DAY = 1440
_WAIT_S = 1.0


class RangeMissingError(CallmeterError):
    """The log no longer has what is to be rebuilt; nothing was changed."""

    exit_code = EXIT_INCOMPLETE


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to rebuild: everything, a partition, origins of one, or what the log got in a period."""

    partition: int | None = None
    first: int | None = None
    last: int | None = None
    period: Period = field(default_factory=Period)

    @classmethod
    def of(
        cls,
        partition: int | None = None,
        first: int | None = None,
        last: int | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> Wanted:
        """``UsageError`` for bounds that do not go together."""
        if (first is not None or last is not None) and partition is None:
            raise UsageError("offsets are of one partition: name it too")
        if first is not None and last is not None and last < first:
            raise UsageError("the last offset is before the first")
        return cls(partition, first, last, Period.of(since, until))

    def covers(self, checkpoint: Checkpoint) -> bool:
        if self.first is not None and checkpoint.last < self.first:
            return False
        if self.last is not None and checkpoint.first > self.last:
            return False
        since, until = self.period.since, self.period.until
        if since is not None and checkpoint.to_us < epoch_us(since):
            return False
        return until is None or checkpoint.from_us < epoch_us(until)


@dataclass(slots=True)
class Checkpoint:
    """Origins that the meter read between two commits, with the metered offsets they lie at."""

    first: int
    last: int
    offsets: tuple[int, int]
    records: int
    events: int
    from_us: int
    to_us: int
    days: set[date]


@dataclass(slots=True)
class RepairRange:
    """Neighbouring checkpoints of one partition; origins and metered offsets, ends included."""

    partition: int
    first: int
    last: int
    offsets: tuple[int, int]
    records: int = 0
    events: int = 0
    days: set[date] = field(default_factory=set)

    def take(self, checkpoint: Checkpoint) -> None:
        self.last = checkpoint.last
        self.offsets = self.offsets[0], checkpoint.offsets[1]
        self.records += checkpoint.records
        self.events += checkpoint.events
        self.days |= checkpoint.days


@dataclass(frozen=True, slots=True)
class RepairPlan:
    """Ranges of one log; rollups are rebuilt for the days (UTC, event time) they touch."""

    log_id: str
    ranges: list[RepairRange]

    @property
    def events(self) -> int:
        return sum(each.events for each in self.ranges)

    @property
    def days(self) -> list[date]:
        return sorted(set().union(*(each.days for each in self.ranges)))


def plan_repair(
    store: Store,
    source: MeteredSource,
    wanted: Wanted,
    on_record: Callable[[int, int], None] = lambda *_: None,
) -> RepairPlan:
    """Read the log and lay out the repair; ``on_record`` is told where it is reading.

    ``RangeMissingError`` names what the log no longer has, ``OriginBreakError`` a hole in it,
    ``UsageError`` a partition that does not exist.
    """
    partitions = sorted(source.assignment())
    if wanted.partition is not None:
        if wanted.partition not in partitions:
            raise UsageError(
                f"there is no partition {wanted.partition}: 0 to {len(partitions) - 1}"
            )
        partitions = [wanted.partition]
    ranges: list[RepairRange] = []
    for partition in partitions:
        ranges += _ranges(store, source, partition, wanted, on_record)
    return RepairPlan(source.log_id, ranges)


def _ranges(
    store: Store,
    source: MeteredSource,
    partition: int,
    wanted: Wanted,
    on_record: Callable[[int, int], None],
) -> list[RepairRange]:
    found: list[RepairRange] = []
    lost = _lost(store, source, partition)
    begun = False
    after = 0
    for checkpoint in checkpoints(source, partition, lost):
        on_record(partition, checkpoint.offsets[1])
        if not begun:
            _must_have(partition, wanted, lost, checkpoint)
            begun = True
        after = checkpoint.last + 1
        if not wanted.covers(checkpoint):
            continue
        if not found or found[-1].last + 1 != checkpoint.first:
            first = RepairRange(partition, checkpoint.first, checkpoint.last, checkpoint.offsets)
            found.append(first)
        found[-1].take(checkpoint)
    if not begun:
        _must_be_empty(store, source, partition, wanted)
    if wanted.last is not None and wanted.last >= after:
        raise RangeMissingError(
            f"partition {partition}: offsets {max(after, wanted.first or 0)} to {wanted.last} are "
            f"not in the log, which holds offsets below {after}"
        )
    return found


def _must_have(
    partition: int, wanted: Wanted, lost: list[tuple[int, int]], oldest: Checkpoint
) -> None:
    """The log must begin early enough; what never reached a store is not asked for."""
    needed = max(
        wanted.first or 0, max((last + 1 for first, last in lost if first == 0), default=0)
    )
    since = wanted.period.since
    in_time = since is not None and oldest.from_us <= epoch_us(since)
    if oldest.first <= needed or in_time:
        return
    at = datetime.fromtimestamp(oldest.from_us / 1e6, UTC)
    raise RangeMissingError(
        f"partition {partition}: offsets {needed} to {oldest.first - 1} are gone from the log, "
        f"which begins with offset {oldest.first} of {at:%Y-%m-%dT%H:%M:%SZ}: what the store has "
        f"of them would be lost; repair from there on (--partition {partition} --first "
        f"{oldest.first}, or a later --since)"
    )


def _must_be_empty(store: Store, source: MeteredSource, partition: int, wanted: Wanted) -> None:
    """Of a partition without any record the store must not have what is to be rebuilt."""
    binding = Binding()
    where = [
        f"log_id = {binding.add(source.log_id, 'UUID')}",
        f"partition = {binding.add(partition, 'UInt16')}",
        *wanted.period.sql("log_ts", binding),
    ]
    sql = f"SELECT count(), min(origin), max(origin) FROM envelopes WHERE {' AND '.join(where)}"
    count, first, last = store.query(sql, binding.values).rows[0]
    if count:
        raise RangeMissingError(
            f"partition {partition}: the log has nothing of it any more, and the store has offsets "
            f"{first} to {last}: repair the other partitions one by one (--partition)"
        )


def _lost(store: Store, source: MeteredSource, partition: int) -> list[tuple[int, int]]:
    """Ranges of origins that were written down as lost."""
    rows = store.query(
        "SELECT DISTINCT origin_first, origin_last FROM sink_losses "
        "WHERE topic = {topic:String} AND partition = {partition:UInt16} "
        "AND log_id = {log_id:UUID} ORDER BY 1",
        {"topic": source.topic, "partition": partition, "log_id": source.log_id},
    ).rows
    return [(int(first), int(last)) for first, last in rows]


def read_range(source: MeteredSource, partition: int, first: int, end: int) -> Iterator[Metered]:
    """Metered records of this log from offset ``first``, before ``end``, in order."""
    position = first
    while position < end and not source.reached(partition, position, end):
        records = source.read(partition, position, max_records=READ_RECORDS, max_bytes=READ_BYTES)
        if not records:
            source.wait({partition: position}, _WAIT_S)
            continue
        for record in records:
            if record.offset >= end:
                return
            try:
                metered = parse(record)
            except ForeignRecordError:
                continue  # the sink has set it aside; no meter wrote it, so no figure misses it
            if metered.log_id == source.log_id:
                yield metered
        position = records[-1].offset + 1


def checkpoints(
    source: MeteredSource, partition: int, lost: list[tuple[int, int]]
) -> Iterator[Checkpoint]:
    """Every whole checkpoint that the log has, checked to follow one another but where lost."""
    sequence = OriginSequence(partition)
    held: list[Metered] = []
    first, end = source.first_offset(partition), source.end_offset(partition)
    for record in read_range(source, partition, first, end):
        try:
            sequence.check(record)
        except OriginBreakError as broken:
            if (broken.expected, broken.found - 1) not in lost:
                raise
            sequence.resume_at(record)
            held.clear()
        held.append(record)
        if record.ends_checkpoint:
            # Retention may have taken the beginning of the oldest one.
            if held[0].first == record.first:
                yield _checkpoint(held)
            held.clear()


def _checkpoint(records: list[Metered]) -> Checkpoint:
    days = {
        datetime.fromtimestamp(int(minute) // _MINUTES_A_DAY * 86_400, UTC).date()
        for record in records
        if record.type == "deltas"
        for minute in _MINUTE.findall(record.value, record.body_at)
    }
    return Checkpoint(
        records[-1].first,
        records[-1].last,
        (records[0].offset, records[-1].offset),
        len(records),
        sum(record.events for record in records),
        records[0].log_ts_us,
        records[-1].log_ts_us,
        days,
    )
