"""The budgets as they are now, for every request and stream of one collector."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Protocol

import orjson

from callmeter.errors import CallmeterError, UnreachableError
from callmeter.log.position import POSITION_KEY
from callmeter.log.record import LogRecord
from callmeter.schema.budgets import Budget, decode_budget
from callmeter.schema.topics import BUDGET_STATUS, BUDGETS

log = logging.getLogger("callmeter.collector")

_POLL_S = 0.1
_AWAY_S = 2.0
#: Changes that a slow reader may be behind; then it gets everything anew.
_BEHIND = 10_000


class BudgetRecords(Protocol):
    """Where budgets are read from. Used by one task of the collector's loop.

    ``poll`` gives the records of ``budgets`` and ``budget-status`` that have come since the last
    call, at first all there are. It may wait a little for the next record, and raises
    ``UnreachableError`` while the log is away.
    """

    async def poll(self) -> Sequence[LogRecord]: ...

    async def close(self) -> None: ...


class Change:
    """One definition or status that has changed; ``body`` None: it is gone."""

    __slots__ = ("body", "budget", "entity", "event", "key")

    def __init__(self, event: str, key: str, budget: str, entity: str, body: bytes | None) -> None:
        self.event = event
        self.key = key
        self.budget = budget
        self.entity = entity
        self.body = body


class BudgetHub:
    """Follows the log while the collector runs, and keeps the newest of everything."""

    def __init__(self, records: BudgetRecords) -> None:
        self._records = records
        self._definitions: dict[str, Change] = {}
        self._statuses: dict[str, Change] = {}
        self.budgets: dict[str, Budget] = {}
        self._readers: set[asyncio.Queue[Change | None]] = set()
        self._task: asyncio.Task[None] | None = None
        self.loaded = asyncio.Event()

    async def start(self) -> None:
        """Begin to follow."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """End following."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._records.close()

    def end_streams(self) -> None:
        """Wake every stream up for its end."""
        for queue in list(self._readers):
            self.leave(queue)
            if not queue.full():
                queue.put_nowait(None)

    def now(self) -> list[Change]:
        """Every definition and status, definitions first."""
        return [*self._definitions.values(), *self._statuses.values()]

    def join(self) -> asyncio.Queue[Change | None]:
        """A queue that gets every change from now on."""
        queue: asyncio.Queue[Change | None] = asyncio.Queue(_BEHIND)
        self._readers.add(queue)
        return queue

    def leave(self, queue: asyncio.Queue[Change | None]) -> None:
        """No more changes for this queue."""
        self._readers.discard(queue)

    async def _run(self) -> None:
        while True:
            try:
                records = await self._records.poll()
            except UnreachableError as exc:
                log.warning("budgets cannot be read: %s", exc)
                await asyncio.sleep(_AWAY_S)
                continue
            for record in records:
                self._take(record)
            self.loaded.set()
            await asyncio.sleep(_POLL_S)

    def _take(self, record: LogRecord) -> None:
        if record.key is None or record.key == POSITION_KEY:
            return
        key = record.key.decode(errors="replace")
        if record.topic == BUDGETS.name:
            budget = self._define(key, record.value)
            gone = budget is None or budget.state == "deleted"
            change = Change("definition", key, key, "", None if gone else record.value)
            _keep(self._definitions, change)
        elif record.topic == BUDGET_STATUS.name:
            name, _, entity = key.partition("|")
            change = Change("status", key, name, entity, record.value)
            _keep(self._statuses, change)
        else:
            return
        for queue in list(self._readers):
            if queue.full():
                # It is told by the end of its stream, and begins anew.
                self.leave(queue)
                continue
            queue.put_nowait(change)

    def _define(self, name: str, value: bytes | None) -> Budget | None:
        self.budgets.pop(name, None)
        if value is None:
            return None
        try:
            budget = decode_budget(value)
        except CallmeterError as exc:
            log.warning("a budget definition is left out: %s", exc)
            return None
        self.budgets[name] = budget
        return budget

    def joined(self, queue: asyncio.Queue[Change | None]) -> bool:
        """Whether the queue still gets changes: a reader too far behind does not."""
        return queue in self._readers


def _keep(table: dict[str, Change], change: Change) -> None:
    if change.body is None:
        table.pop(change.key, None)
    else:
        table[change.key] = change


def encode(changes: Sequence[Change], more: Mapping[str, object]) -> bytes:
    """The JSON answer: definitions and statuses beside ``more``."""
    by_event: dict[str, list[orjson.Fragment]] = {"definition": [], "status": []}
    for change in changes:
        if change.body is not None:
            by_event[change.event].append(orjson.Fragment(change.body))
    return orjson.dumps(
        {**more, "definitions": by_event["definition"], "statuses": by_event["status"]}
    )
