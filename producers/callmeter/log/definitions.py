"""Budget definitions as a table that is edited by one person at a time, on either log.

Beside the definitions stands the row ``position``, which counts edits: an edit is written with the
next count, in one transaction that is refused if the count has moved since it was read. Of two
edits that race one is refused, and changes nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from callmeter.errors import CannotWriteError, DataError
from callmeter.log.position import (
    POSITION_KEY,
    PositionConflictError,
    decode_position,
    encode_position,
)
from callmeter.log.record import NewRecord
from callmeter.schema.budgets import Budget, decode_budget, encode_budget
from callmeter.schema.topics import BUDGETS

if TYPE_CHECKING:
    from callmeter.log.kafka_settings import KafkaSettings
    from callmeter.log.sqlite_log import SqliteLog

#: Makes the definition to be written from all there are, by name; raises to change nothing.
Edit = Callable[[Mapping[str, Budget]], Budget]


def read_definitions(rows: Mapping[bytes, bytes]) -> dict[str, Budget]:
    """The definitions among the topic's rows, deleted ones too; what is not valid is left out.

    ``NewerSchemaError`` if one is of a newer format.
    """
    found = {}
    for key, value in sorted(rows.items()):
        if key == POSITION_KEY:
            continue
        try:
            budget = decode_budget(value)
        except DataError:
            # Whoever set it has been told; the runtimes log it.
            continue
        found[budget.id] = budget
    return found


def edit_sqlite(log: SqliteLog, edit: Edit) -> Budget:
    """Edit the table of an embedded log. ``CannotWriteError`` if somebody else did meanwhile."""
    edits = log.position(BUDGETS.name, 0)
    budget = edit(read_definitions(log.rows(BUDGETS.name, 0)))
    try:
        log.commit(
            BUDGETS.name,
            0,
            rows={budget.id.encode(): encode_budget(budget)},
            outputs=(),
            next_offset=(edits or 0) + 1,
            expected_next=edits,
        )
    except PositionConflictError as exc:
        raise _raced(budget) from exc
    return budget


def edit_kafka(settings: KafkaSettings, edit: Edit) -> Budget:
    """Edit the table on Kafka. ``CannotWriteError`` if somebody else began to edit meanwhile."""
    return asyncio.run(_edit_kafka(settings, edit))


async def _edit_kafka(settings: KafkaSettings, edit: Edit) -> Budget:
    from callmeter.log.kafka_admin import check_topics, read_log_id
    from callmeter.log.kafka_state import read_table
    from callmeter.log.kafka_transaction import FencedError, TransactionWriter

    partitions, log_id = await check_topics(settings), await read_log_id(settings)
    # Starting the producer fences whoever began before: what is read afterwards is all there is,
    # and whoever begins after this fences us.
    name = f"{settings.prefix}.{BUDGETS.name}"
    writer = TransactionWriter(settings, name, partitions=partitions)
    try:
        await writer.start()
        rows = await read_table(settings, BUDGETS.name)
        edits = decode_position(rows[POSITION_KEY], log_id) if POSITION_KEY in rows else None
        budget = edit(read_definitions(rows))
        position = encode_position(log_id, (edits or 0) + 1)
        try:
            await writer.commit(
                [
                    NewRecord(BUDGETS.name, budget.id.encode(), encode_budget(budget), 0),
                    NewRecord(BUDGETS.name, POSITION_KEY, position, 0),
                ]
            )
        except FencedError as exc:
            raise _raced(budget) from exc
    finally:
        await writer.stop()
    return budget


def _raced(budget: Budget) -> CannotWriteError:
    return CannotWriteError(
        f"budget {budget.id!r}: somebody else is editing budgets; nothing was changed, try again"
    )
