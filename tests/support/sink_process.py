"""A sink as a process of its own, to be killed: ``python sink_process.py LOG STORE``.

Prints a line for every insert that has ended (``B``), ``REPAIRED n`` for phantoms that the store
dropped on opening, and ``DONE`` at the end of the log.
"""

from __future__ import annotations

import sys
from pathlib import Path

from callmeter.log.sqlite_log import SqliteLog
from callmeter_sinks.clickhouse.chdb_store import ChdbStore
from callmeter_sinks.clickhouse.migrate import migrate
from callmeter_sinks.ranges import RangeLimits
from callmeter_sinks.sink import Sink
from callmeter_sinks.source import SqliteSource


class TalkingStore(ChdbStore):
    """Says what it does, so that a killer can aim."""

    def insert_block(self, table, columns, block, **more):
        print("I" if table == "sink_intents" else "L", flush=True)
        super().insert_block(table, columns, block, **more)
        print("B", flush=True)


def main(log_path: str, store_path: str) -> None:
    store = TalkingStore(store_path)
    print(f"REPAIRED {len(store.repaired)}", flush=True)
    migrate(store)
    with SqliteLog(Path(log_path), partitions=2) as log:
        limits = RangeLimits(max_events=60, linger_s=0.0)
        Sink(store, SqliteSource(log), limits=limits).drain()
    print("DONE", flush=True)
    store.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
