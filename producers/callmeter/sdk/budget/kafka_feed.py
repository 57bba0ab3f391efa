"""A shared budget's status straight from Kafka, for programs that send to Kafka."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from callmeter.errors import UnreachableError
from callmeter.log.kafka_settings import KafkaSettings
from callmeter.log.kafka_tail import KafkaTail
from callmeter.schema.budgets import Budget, decode_budget
from callmeter.schema.status import BudgetStatus, decode_status
from callmeter.schema.topics import BUDGET_STATUS, BUDGETS, DEFAULT_PREFIX
from callmeter.sdk.budget.feed import take_record

if TYPE_CHECKING:
    from callmeter.log.record import LogRecord
    from callmeter.sdk.budget.shared import SharedBudget

#: How often a broker that has nothing new is asked whether it lives, and how long it may take.
_ASK_EVERY_S = 3.0
_ANSWER_S = 6.0
#: A record that comes sooner is told sooner.
_POLL_MS = 200


class KafkaFeed:
    """Follows the compacted topics ``budgets`` and ``budget-status``."""

    def __init__(self, url: str, prefix: str | None) -> None:
        from dataclasses import replace

        settings = KafkaSettings.from_url(url)
        if prefix and settings.prefix == DEFAULT_PREFIX:
            settings = replace(settings, prefix=prefix)
        self._settings = settings
        self._stopped = False

    def stop(self) -> None:
        self._stopped = True

    def follow(self, budget: SharedBudget) -> None:
        asyncio.run(self._follow(budget))

    async def _follow(self, budget: SharedBudget) -> None:
        tail = _AskingTail(self._settings, (BUDGETS.name, BUDGET_STATUS.name))
        loop = asyncio.get_running_loop()
        try:
            records = await tail.poll(_POLL_MS)
            while not tail.caught_up and not self._stopped:
                records += await tail.poll(_POLL_MS)
            budget.snapshot(*_newest(budget.name, records))
            ask_s = loop.time() + _ASK_EVERY_S
            while not self._stopped:
                for record in await tail.poll(_POLL_MS):
                    _tell(budget, record)
                if loop.time() >= ask_s:
                    await tail.ask()
                    budget.heard()
                    ask_s = loop.time() + _ASK_EVERY_S
        finally:
            await tail.close()


class _AskingTail(KafkaTail):
    """A tail that can tell a quiet broker from one that is away."""

    async def ask(self) -> None:
        """``UnreachableError`` if the brokers do not answer."""
        try:
            async with asyncio.timeout(_ANSWER_S):
                await self._consumer.end_offsets(list(self._ends))
        except Exception as exc:
            raise UnreachableError(f"Kafka does not answer: {type(exc).__name__}") from exc


def _newest(name: str, records: list[LogRecord]) -> tuple[Budget | None, list[BudgetStatus]]:
    """The definition and the statuses as they are after these records."""
    newest = {(record.topic, record.key): record.value for record in records}
    prefix = f"{name}|".encode()
    definition = newest.get((BUDGETS.name, name.encode()))
    statuses = [
        decode_status(value)
        for (topic, key), value in newest.items()
        if topic == BUDGET_STATUS.name and key is not None and key.startswith(prefix) and value
    ]
    return None if definition is None else decode_budget(definition), statuses


def _tell(budget: SharedBudget, record: LogRecord) -> None:
    key = (record.key or b"").decode(errors="replace")
    take_record(budget, record.topic == BUDGET_STATUS.name, key, record.value)
