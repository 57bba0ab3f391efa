"""Where a collector reads budgets from: an embedded log, or Kafka."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from callmeter.log.record import LogRecord
from callmeter.log.sqlite_tail import SqliteTail
from callmeter.schema.topics import BUDGET_STATUS, BUDGETS

if TYPE_CHECKING:
    from callmeter.log.kafka_settings import KafkaSettings
    from callmeter.log.sqlite_log import SqliteLog

_TOPICS = (BUDGETS.name, BUDGET_STATUS.name)


class SqliteBudgets:
    """The records of an embedded log."""

    def __init__(self, log: SqliteLog) -> None:
        self._tail = SqliteTail(log, _TOPICS)

    async def poll(self) -> Sequence[LogRecord]:
        return await asyncio.to_thread(self._tail.poll)

    async def close(self) -> None:
        """Nothing to let go of: the log is its owner's."""


class KafkaBudgets:
    """The records on Kafka; the first call returns all there are."""

    def __init__(self, settings: KafkaSettings) -> None:
        from callmeter.log.kafka_tail import KafkaTail

        self._tail = KafkaTail(settings, _TOPICS)

    async def poll(self) -> Sequence[LogRecord]:
        found = await self._tail.poll()
        while not self._tail.caught_up:
            found += await self._tail.poll()
        return found

    async def close(self) -> None:
        await self._tail.close()
