"""Reads and writes of the log's tables, in a transaction of somebody else (layout: sqlite_file)."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from itertools import takewhile

from callmeter.log.position import POSITION_KEY, decode_position
from callmeter.log.record import Appended
from callmeter.schema.topics import BY_NAME

OFFSET_BITS = 40
OFFSET_MASK = (1 << OFFSET_BITS) - 1
PRUNE_CHUNK = 1000

#: A record whose place is known: (stream, topic, key, value).
Placed = tuple[int, str, bytes | None, bytes | None]


def is_compacted(topic: str) -> bool:
    """Whether the registry says that only the newest record of a key counts."""
    return topic in BY_NAME and BY_NAME[topic].config.get("cleanup.policy") == "compact"


def insert(connection: sqlite3.Connection, placed: Sequence[Placed], now_us: int) -> list[Appended]:
    """Inserts records under the next offsets of their streams, in the order given."""
    nexts: dict[int, tuple[int, int]] = {}
    result: list[Appended] = []
    inserts: list[tuple[int, int, bytes | None, bytes | None]] = []
    for stream, topic, key, value in placed:
        if stream not in nexts:
            nexts[stream] = connection.execute(
                "SELECT next, part FROM streams WHERE id = ?", (stream,)
            ).fetchone()
        offset, partition = nexts[stream]
        nexts[stream] = offset + 1, partition
        row = (stream << OFFSET_BITS | offset, now_us, key, value)
        result.append(Appended(partition, offset))
        if key is not None and is_compacted(topic):
            # One by one: a later record of the same key in this very batch must find this one.
            forget(connection, stream, key)
            connection.execute("INSERT INTO records VALUES (?, ?, ?, ?)", row)
            connection.execute("INSERT INTO latest VALUES (?, ?, ?)", (stream, key, row[0]))
        else:
            inserts.append(row)
    connection.executemany("INSERT INTO records VALUES (?, ?, ?, ?)", inserts)
    connection.executemany(
        "UPDATE streams SET next = ? WHERE id = ?",
        [(offset, stream) for stream, (offset, _) in nexts.items()],
    )
    return result


def forget(connection: sqlite3.Connection, stream: int, key: bytes) -> None:
    """Deletes the newest record of a key, and the pointer to it."""
    connection.execute(
        "DELETE FROM records WHERE id = (SELECT id FROM latest WHERE stream = ? AND key = ?)",
        (stream, key),
    )
    connection.execute("DELETE FROM latest WHERE stream = ? AND key = ?", (stream, key))


def prune_chunk(
    connection: sqlite3.Connection,
    *,
    stream: int,
    below: int,
    before_us: int | None,
    tombstones_only: bool,
) -> int:
    """Deletes up to ``PRUNE_CHUNK`` of the oldest records that both limits allow: how many."""
    oldest = connection.execute(
        "SELECT id, ts, key FROM records "
        "WHERE id >= ? AND id < ? AND (value IS NULL OR NOT ?) ORDER BY id LIMIT ?",
        (stream << OFFSET_BITS, stream << OFFSET_BITS | below, tombstones_only, PRUNE_CHUNK),
    ).fetchall()
    # The oldest run only: a record that stays keeps all that follow it.
    gone = list(takewhile(lambda row: before_us is None or row[1] < before_us, oldest))
    connection.executemany("DELETE FROM records WHERE id = ?", [(row[0],) for row in gone])
    if tombstones_only:
        connection.executemany(
            "DELETE FROM latest WHERE stream = ? AND key = ?", [(stream, row[2]) for row in gone]
        )
    return len(gone)


def stored_position(connection: sqlite3.Connection, stream: int, log_id: str) -> int | None:
    """The position in a state topic's stream; None if there is none."""
    row = connection.execute(
        "SELECT r.value FROM latest l JOIN records r ON r.id = l.id "
        "WHERE l.stream = ? AND l.key = ?",
        (stream, POSITION_KEY),
    ).fetchone()
    return None if row is None else decode_position(row[0], log_id)
