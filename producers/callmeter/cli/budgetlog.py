"""Reads and edits budgets, in a directory's log or on Kafka."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from callmeter.cli.options import DEFAULT_DIR
from callmeter.embedded import LOG_FILE, running
from callmeter.errors import ConfigError, UsageError
from callmeter.log.definitions import Edit, edit_kafka, edit_sqlite, read_definitions
from callmeter.log.sqlite_log import SqliteLog
from callmeter.schema.budgets import Budget
from callmeter.schema.status import BudgetStatus, decode_status
from callmeter.schema.topics import BUDGET_STATUS, BUDGETS

if TYPE_CHECKING:
    from callmeter_sinks.clickhouse.store import Store

_AT_ONCE = 8


class BudgetLog:
    """The budgets of one place. ``UsageError`` if two are named, ``ConfigError`` without a log."""

    def __init__(self, directory: Path | None, kafka_url: str | None) -> None:
        if directory is not None and kafka_url is not None:
            raise UsageError("give --dir or --kafka, not both")
        self._kafka_url = kafka_url
        self._home = directory or Path(DEFAULT_DIR)

    def definitions(self) -> dict[str, Budget]:
        """Every definition by name, deleted ones left out."""
        if self._kafka_url is None:
            with self._sqlite() as log:
                rows = log.rows(BUDGETS.name, 0)
        else:
            from callmeter.log.kafka_settings import KafkaSettings
            from callmeter.log.kafka_state import read_table

            rows = asyncio.run(read_table(KafkaSettings.from_url(self._kafka_url), BUDGETS.name))
        found = read_definitions(rows)
        return {name: each for name, each in found.items() if each.state != "deleted"}

    def edit(self, edit: Edit) -> Budget:
        """Write what ``edit`` makes of the definitions; durable on return."""
        if self._kafka_url is None:
            with self._sqlite() as log:
                return edit_sqlite(log, edit)
        from callmeter.log.kafka_settings import KafkaSettings

        return edit_kafka(KafkaSettings.from_url(self._kafka_url), edit)

    def statuses(self) -> list[BudgetStatus]:
        """The newest status of every entity, by budget and entity."""
        if self._kafka_url is None:
            with self._sqlite() as log:
                tables = [log.rows(BUDGET_STATUS.name, p) for p in range(log.partitions)]
        else:
            tables = asyncio.run(_read_statuses(self._kafka_url))
        found = [decode_status(value) for table in tables for value in table.values()]
        return sorted(found, key=lambda status: (status.budget, status.entity))

    @property
    def running_store(self) -> str | None:
        """The URL of the store of the ``up`` that runs over this log, if one does."""
        owner = None if self._kafka_url is not None else running(self._home)
        return None if owner is None else owner.store_url

    @property
    def no_store(self) -> str:
        """Why there is no store to ask."""
        return "`callmeter up` does not run" if self._kafka_url is None else "no --store was given"

    def open(self, store: Store, budget: Budget, patience_s: float) -> int:
        """Bring in what the budget had spent before; see ``open_budget``."""
        from callmeter.cli.budgetopen import kafka_opener, open_budget, sqlite_opener

        if self._kafka_url is None:
            with self._sqlite() as log:
                return open_budget(sqlite_opener(log), store, budget, patience_s)
        from callmeter.log.kafka_settings import KafkaSettings

        opener = kafka_opener(KafkaSettings.from_url(self._kafka_url))
        return open_budget(opener, store, budget, patience_s)

    def _sqlite(self) -> SqliteLog:
        if not (self._home / LOG_FILE).exists():
            raise ConfigError(
                f"no log in {self._home}: start `callmeter up`, or give --dir or --kafka"
            )
        return SqliteLog(self._home / LOG_FILE)


async def _read_statuses(kafka_url: str) -> list[dict[bytes, bytes]]:
    from callmeter.log.kafka_admin import check_topics
    from callmeter.log.kafka_settings import KafkaSettings
    from callmeter.log.kafka_state import read_rows

    settings = KafkaSettings.from_url(kafka_url)
    partitions = await check_topics(settings)
    room = asyncio.Semaphore(_AT_ONCE)

    async def read(partition: int) -> dict[bytes, bytes]:
        async with room:
            return await read_rows(settings, BUDGET_STATUS.name, partition)

    return await asyncio.gather(*map(read, range(partitions)))
