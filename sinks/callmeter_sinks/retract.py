"""Take back what a refused insert has left of a record that is now in quarantine.

An insert goes into each view's target by itself: when one view refuses, others may have their rows
already, and the deduplication window keeps them when the range comes again without the record. So
its rows are deleted by origin: of a quarantined record nothing is in the store, of its neighbours
all. Deltas cannot be taken back from rollups; of theirs only the control totals are, and ``verify``
shows the difference until the record is repaired.
"""

from __future__ import annotations

from callmeter_sinks.clickhouse.store import Store
from callmeter_sinks.rows import Metered
from callmeter_sinks.streams import Stream

_BY_ORIGIN = (
    "envelopes",
    "calls",
    "calls_open",
    "costs",
    "metrics",
    "annotations",
    "experiments",
    "dead_letters",
)
_PLACE = "log_id = {log_id:UUID} AND partition = {partition:UInt16}"
_WAIT = {"lightweight_deletes_sync": "2"}


def retract(store: Store, stream: Stream, partition: int, record: Metered) -> None:
    """Delete the rows of one record. May be repeated; returns when no query sees them any more."""
    place = {"log_id": record.log_id, "partition": partition}
    if stream.rows_in:
        at = {**place, "offset": record.offset}
        for table in stream.rows_in:
            rows = f"FROM {table} WHERE {_PLACE} AND topic_offset = {{offset:Int64}}"
            store.command(f"DELETE {rows}", at, _WAIT)
        return
    if record.type == "envelope":
        at = {**place, "origin": record.first}
        for table in _BY_ORIGIN:
            # Table names from the list above; every value is bound.
            rows = f"FROM {table} WHERE {_PLACE} AND origin = {{origin:Int64}}"
            if store.query(f"SELECT 1 {rows} LIMIT 1", at).rows:
                store.command(f"DELETE {rows}", at, _WAIT)
        return
    store.command(
        f"DELETE FROM rollup_controls WHERE {_PLACE} AND metered_offset = {{offset:Int64}}",  # noqa: S608
        {**place, "offset": record.offset},
        _WAIT,
    )
