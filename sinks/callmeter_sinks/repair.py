"""Repair: ranges of the store made anew from the log, exactly.

    plan          read the log, say what would be rebuilt, refuse what the log no longer has
    drain         a sink brings the store to the log's end; its last range is then at rest
    all ranges    delete their rows
    each range    insert envelopes and control totals again → lift quarantine
    each day      rollups of the days that the ranges touch, summed anew from single rows

Every step may be repeated, so a repair that was cut short is simply started again; until then
``verify`` shows what is missing. No sink may write meanwhile: one that claims a partition is
noticed before every step, and the repair stops. docs/decisions/0016-repair.md says why so.
Of several shards each is repaired by itself, from the partitions that it has (``ShardSource``).
"""

# ruff: noqa: S608 - only names that the engine lists are put together; every value is bound

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from functools import partial
from typing import TypeVar

from callmeter.errors import CannotWriteError
from callmeter_sinks.backoff import Patience
from callmeter_sinks.checks.retention import horizons
from callmeter_sinks.clickhouse.store import PermanentStoreError, Store
from callmeter_sinks.intents import Books, Claim
from callmeter_sinks.probe import find_refused
from callmeter_sinks.queries.dimensions import Binding
from callmeter_sinks.repair_plan import RepairPlan, RepairRange, read_range
from callmeter_sinks.repair_rollups import portions, rebuild_days
from callmeter_sinks.retract import retract
from callmeter_sinks.rows import Metered
from callmeter_sinks.sink import Sink
from callmeter_sinks.source import MeteredSource
from callmeter_sinks.streams import STREAMS

_T = TypeVar("_T")
_MAX_EVENTS = 20_000
_MAX_BYTES = 32 * 2**20
_WAIT = {"lightweight_deletes_sync": "2"}
_CONTROLS = ("rollup_controls", "first")
#: Tables whose rows say by which event they came, whatever migration has made them.
_BY_ORIGIN = """
SELECT t.name FROM system.tables AS t
WHERE t.database = currentDatabase() AND t.engine LIKE '%MergeTree'
AND NOT startsWith(t.name, 'sink_') AND 3 = (
  SELECT count() FROM system.columns AS c WHERE c.database = currentDatabase()
  AND c.table = t.name AND c.name IN ('log_id', 'partition', 'origin'))
"""


class RepairDisturbedError(CannotWriteError):
    """A sink began to write while the store was being repaired."""


@dataclass
class Repaired:
    """What a repair did. ``still_refused`` are records that stay in quarantine."""

    events: int = 0
    records: int = 0
    days: int = 0
    lifted: int = 0
    still_refused: list[int] = field(default_factory=list)
    #: Days whose single rows retention may have removed: their rollups are as they were.
    left_days: list[str] = field(default_factory=list)

    def add(self, other: Repaired) -> None:
        """Join what was done to another shard."""
        self.events += other.events
        self.records += other.records
        self.days += other.days
        self.lifted += other.lifted
        self.still_refused += other.still_refused
        self.left_days = sorted({*self.left_days, *other.left_days})


class Repair:
    """One repair of a store from a log. ``name`` is the sinks' name, whose books it keeps.

    ``on_events`` and ``on_days`` are told of progress. ``run`` raises ``RepairDisturbedError`` and
    what the log and the store raise, and may be called again after any of it.
    """

    def __init__(
        self,
        store: Store,
        source: MeteredSource,
        *,
        name: str = "callmeter",
        on_events: Callable[[int], None] = lambda _: None,
        on_days: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._store = store
        self._source = source
        self._books = Books(store, name, source.topic)
        self._name = name
        self._stream = STREAMS[source.topic]
        self._patience = Patience(threading.Event())
        self._on_events = on_events
        self._on_days = on_days
        self._token = f"repair:{uuid.uuid4()}"
        self._claims: dict[int, Claim | None] = {}
        self._tables = _tables(store)

    def settle(self) -> None:
        """Bring the store to the log's end, so that no range is under way. First of all."""
        Sink(self._store, self._source, name=self._name).drain()
        self._claims = {p: self._books.newest_claim(p) for p in self._source.assignment()}

    def run(self, plan: RepairPlan) -> Repaired:
        """Carry out a plan that was made after ``settle``."""
        done = Repaired()
        kept_from = max(
            (at for table, at in horizons(self._store).items() if table in ("calls", "costs")),
            default=datetime(1970, 1, 1, tzinfo=UTC),
        ).date()
        days = set(plan.days) | self._stored_days(plan)
        self._undisturbed()
        self._delete(plan)
        for each in plan.ranges:
            self._refill(plan.log_id, each, done)
        done.left_days = sorted(day.isoformat() for day in days if day < kept_from)
        whole = [day for day in days if day >= kept_from]
        for portion in self._ask(lambda: list(portions(self._store, whole))):
            self._undisturbed()
            self._ask(partial(rebuild_days, self._store, portion))
            done.days += len(portion)
            self._on_days(len(portion))
        return done

    def _refill(self, log_id: str, wanted: RepairRange, done: Repaired) -> None:
        refused: set[int] = set()
        for records in _read(self._source, wanted):
            self._undisturbed()
            refused |= self._insert(log_id, wanted.partition, records)
            events = sum(record.events for record in records)
            done.events += events
            done.records += len(records)
            self._on_events(events)
        done.lifted += self._lift(log_id, wanted, refused)
        done.still_refused += sorted(refused)

    def _delete(self, plan: RepairPlan) -> None:
        """Every row of the ranges, in one statement a table: it costs the same for one or many."""
        for table, column in (*((name, "origin") for name in self._tables), _CONTROLS):
            binding = Binding()
            where = _within(plan, column, binding)
            if self._ask(partial(_any_row, self._store, table, where, binding)):
                sql = f"DELETE FROM {table} WHERE {where}"
                self._ask(partial(self._store.command, sql, binding.values, _WAIT))

    def _stored_days(self, plan: RepairPlan) -> set[date]:
        """Days of rows that stand under these origins now: they may be other than the log's."""
        binding = Binding()
        where = _within(plan, "origin", binding)
        sql = " UNION DISTINCT ".join(
            f"SELECT toDate(started_at, 'UTC') AS day FROM {table} WHERE {where}"
            for table in ("calls", "costs")
        )
        rows = self._ask(partial(self._store.query, sql, binding.values)).rows
        return {day for (day,) in rows}

    def _insert(self, log_id: str, partition: int, records: Sequence[Metered]) -> set[int]:
        """Insert a portion; the offsets of records that the store refuses still."""
        refused: set[int] = set()
        while True:
            taken = [_without_deltas(r) for r in records if r.offset not in refused]
            first, last = records[0].offset, records[-1].offset
            token = f"{self._token}:{log_id}:{partition}:{first}:{last}"
            block = self._stream.block(self._source.topic, partition, taken)
            insert = partial(
                self._store.insert_block,
                self._stream.landing, self._stream.columns, block, token=token,
            )  # fmt: skip
            try:
                if block:
                    self._ask(insert)
            except PermanentStoreError:
                found = find_refused(self._store, self._stream, partition, taken)
                if not found or len(found) == len(taken):
                    raise
                refused |= {record.offset for record, _ in found}
                continue
            for record in records:
                if record.offset in refused:
                    self._ask(partial(retract, self._store, self._stream, partition, record))
            return refused

    def _lift(self, log_id: str, wanted: RepairRange, refused: Collection[int]) -> int:
        """Take out of quarantine what is stored now; how many records."""
        first, last = wanted.offsets
        at = {
            "topic": self._source.topic,
            "log_id": log_id,
            "partition": wanted.partition,
            "first": first,
            "last": last,
            "refused": sorted(refused),
        }
        where = (
            "topic = {topic:String} AND log_id = {log_id:UUID} AND partition = {partition:UInt16} "
            "AND offset BETWEEN {first:Int64} AND {last:Int64} AND origin >= 0 "
            "AND offset NOT IN {refused:Array(Int64)}"
        )
        count = f"SELECT uniqExact(offset) FROM sink_quarantine WHERE {where}"
        lifted = int(self._ask(lambda: self._store.query(count, at)).rows[0][0])
        if lifted:
            sql = f"DELETE FROM sink_quarantine WHERE {where}"
            self._ask(partial(self._store.command, sql, at, _WAIT))
        return lifted

    def _undisturbed(self) -> None:
        for partition, claim in self._claims.items():
            if self._ask(partial(self._books.newest_claim, partition)) != claim:
                raise RepairDisturbedError(
                    f"a sink has taken partition {partition} while the store was being repaired: "
                    "stop the sinks, and start the repair again"
                )

    def _ask(self, call: Callable[[], _T]) -> _T:
        return self._patience.until_answered(call)


def _within(plan: RepairPlan, column: str, binding: Binding) -> str:
    """The rows of a plan's ranges, in a table that has their origin in ``column``."""
    log_id = binding.add(plan.log_id, "UUID")
    ranges = [
        f"(partition = {binding.add(each.partition, 'UInt16')} AND {column} BETWEEN "
        f"{binding.add(each.first, 'Int64')} AND {binding.add(each.last, 'Int64')})"
        for each in plan.ranges
    ]
    return f"log_id = {log_id} AND ({' OR '.join(ranges) or '0'})"


def _any_row(store: Store, table: str, where: str, binding: Binding) -> bool:
    return bool(store.query(f"SELECT 1 FROM {table} WHERE {where} LIMIT 1", binding.values).rows)


def _tables(store: Store) -> list[str]:
    return sorted(name for (name,) in store.query(_BY_ORIGIN).rows)


def _read(source: MeteredSource, wanted: RepairRange) -> Iterator[list[Metered]]:
    """The records of a range, as many at a time as one insert takes."""
    portion: list[Metered] = []
    events = size = 0
    first, last = wanted.offsets
    for record in read_range(source, wanted.partition, first, last + 1):
        portion.append(record)
        events += record.events
        size += len(record.value)
        if events >= _MAX_EVENTS or size >= _MAX_BYTES:
            yield portion
            portion, events, size = [], 0, 0
    if portion:
        yield portion


def _without_deltas(record: Metered) -> Metered:
    """Of deltas the header alone, which carries the control totals: rollups come from the rows."""
    if record.type != "deltas":
        return record
    return record._replace(value=record.value[: record.body_at])
