"""Brings in what a budget had spent before it was set, to the pico and once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import msgspec

from callmeter.errors import UnreachableError
from callmeter.log.record import NewRecord
from callmeter.schema.budgets import Budget
from callmeter.schema.spend import SPEND_KEY, OpeningHeader, Spend, spend_partition
from callmeter.schema.topics import METER_STATE, SPEND
from callmeter.schema.windows import window_at

if TYPE_CHECKING:
    from callmeter.log.kafka_settings import KafkaSettings
    from callmeter.log.sqlite_log import SqliteLog
    from callmeter_sinks.clickhouse.store import Store
    from callmeter_sinks.queries.opening import OpeningRow, Origins

_LOOK_S = 0.3
_PART_LINES = 2000
_encoder = msgspec.json.Encoder()
_T = TypeVar("_T")


class Begun(msgspec.Struct):
    """A meter's row: where its partition began a basis."""

    basis: int
    next: int


class Opener(NamedTuple):
    """A log as an opening balance needs it."""

    log_id: str
    partitions: int
    meter_rows: Callable[[], Sequence[Mapping[bytes, bytes]]]
    append: Callable[[Sequence[NewRecord]], object]


def open_budget(log: Opener, store: Store, budget: Budget, patience_s: float) -> int:
    """Write the opening balance of the current window; the pico-USD in it.

    Waits until every meter has taken the budget up and the store has all that came before; raises
    ``UnreachableError`` if that takes longer than ``patience_s``. Running it again changes nothing.
    """
    from callmeter_sinks.queries.opening import Origins, is_stored, opening_spend

    deadline_s = time.monotonic() + patience_s
    begun = _wait(
        lambda: _begun(log, budget), deadline_s, f"no meter counts budget {budget.id!r} everywhere"
    )
    now_us = time.time_ns() // 1000
    since_us = window_at(budget.window, now_us)[0]
    total = 0
    for partition, row in enumerate(begun):
        origins = Origins(log.log_id, partition, row.next)
        _wait(
            partial(_all_or_none, is_stored, store, origins),
            deadline_s,
            f"the store has not all of partition {partition} below offset {row.next}",
        )
        rows = opening_spend(store, budget, origins, since_us)
        total += sum(each.cost_pico for each in rows)
        header = OpeningHeader(
            log=log.log_id,
            partition=partition,
            next=row.next,
            budget=budget.id,
            basis=budget.basis,
            log_ts_us=now_us,
        )
        log.append(list(_records(header, budget, rows, log.partitions)))
    return total


def _all_or_none(is_stored: Callable[[Store, Origins], bool], *of: Any) -> bool | None:
    return is_stored(*of) or None


def _begun(log: Opener, budget: Budget) -> list[Begun] | None:
    found = []
    for rows in log.meter_rows():
        value = rows.get(b"b:" + budget.id.encode())
        row = None if value is None else msgspec.json.decode(value, type=Begun)
        if row is None or row.basis != budget.basis:
            return None
        found.append(row)
    return found


def _wait(look: Callable[[], _T | None], deadline_s: float, what: str) -> _T:
    while True:
        found = look()
        if found is not None:
            return found
        if time.monotonic() > deadline_s:
            raise UnreachableError(f"{what} yet: run `budget open` again later")
        time.sleep(_LOOK_S)


def _records(
    header: OpeningHeader, budget: Budget, rows: Sequence[OpeningRow], partitions: int
) -> Iterator[NewRecord]:
    """One record, or its parts, for each partition of ``spend`` that may hold an entity."""
    lines: dict[int, list[bytes]] = {}
    for row in rows:
        line = Spend(
            budget=budget.id,
            basis=budget.basis,
            window=budget.window,
            entity=row.entity,
            hour=row.hour,
            cost_pico=str(row.cost_pico),
            tokens=row.tokens,
            calls=row.calls,
            failures=row.failures,
            unpriced=row.unpriced,
            usage_unknown=row.usage_unknown,
        )
        place = spend_partition(budget.id, row.entity, partitions)
        lines.setdefault(place, []).append(_encoder.encode(line))
    # A partition without lines is told as well: its statuses say how many openings are in.
    places = range(partitions) if budget.per else [spend_partition(budget.id, "", partitions)]
    for place in places:
        own = lines.get(place, [])
        chunks = [own[at : at + _PART_LINES] for at in range(0, len(own), _PART_LINES)] or [[]]
        for part, chunk in enumerate(chunks):
            head = msgspec.structs.replace(header, part=part, parts=len(chunks))
            value = b"\n".join((_encoder.encode(head), *chunk, b""))
            yield NewRecord(SPEND.name, SPEND_KEY, value, place)


def sqlite_opener(log: SqliteLog) -> Opener:
    """An embedded log."""
    return Opener(
        log.log_id,
        log.partitions,
        lambda: [log.rows(METER_STATE.name, p) for p in range(log.partitions)],
        log.append,
    )


def kafka_opener(settings: KafkaSettings) -> Opener:
    """A log on Kafka."""
    from callmeter.log.kafka_admin import check_topics, read_log_id
    from callmeter.log.kafka_appender import KafkaAppender
    from callmeter.log.kafka_state import read_rows

    async def facts() -> tuple[int, str]:
        return await check_topics(settings), await read_log_id(settings)

    partitions, log_id = asyncio.run(facts())

    async def rows() -> list[Mapping[bytes, bytes]]:
        return [await read_rows(settings, METER_STATE.name, p) for p in range(partitions)]

    async def append(records: Sequence[NewRecord]) -> None:
        appender = await KafkaAppender.start(settings)
        try:
            await appender.append(records)
        finally:
            await appender.close()

    return Opener(
        log_id, partitions, lambda: asyncio.run(rows()), lambda each: asyncio.run(append(each))
    )
