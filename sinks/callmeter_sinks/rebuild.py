"""Reads the records of an intent again: what a writer that takes over inserts once more."""

from __future__ import annotations

import threading
from collections.abc import Callable

from callmeter.log.record import LogRecord
from callmeter_sinks.faults import StoppedError
from callmeter_sinks.intents import Intent
from callmeter_sinks.ranges import Piece
from callmeter_sinks.source import MeteredSource

#: How much is read at a time.
READ_RECORDS = 2000
READ_BYTES = 8 * 2**20
#: How long to wait at a time for records that the log has but has not delivered yet.
_WAIT_S = 1.0


def read_again(
    source: MeteredSource,
    partition: int,
    intent: Intent,
    piece: Callable[[LogRecord], Piece],
    *,
    compacted: bool,
    stop: threading.Event,
) -> list[Piece]:
    """The pieces from the intent's first offset to its last, as far as the log has them.

    Waits for records that were not delivered yet, of a ``compacted`` topic no longer than until
    the log says that none is left. ``StoppedError`` when told to stop, or without the partition.
    """
    pieces: list[Piece] = []
    position = intent.first
    while position <= intent.last:
        if stop.is_set():
            raise StoppedError("stopped while reading a range again")
        records = source.read(partition, position, max_records=READ_RECORDS, max_bytes=READ_BYTES)
        pieces += [piece(record) for record in records if record.offset <= intent.last]
        if records:
            position = records[-1].offset + 1
        elif compacted and source.reached(partition, position, intent.last + 1):
            break
        elif source.assignment().get(partition) is None:
            raise StoppedError("the partition was taken away while a range was read again")
        else:
            source.wait({partition: position}, _WAIT_S)
    return pieces
