"""A sink as a process of its own, to be killed: ``python sink_process.py LOG STORE [--drain]``.

LOG is a SQLite file or ``kafka://…``, STORE a chDB directory or the name of a ``StoreHost``,
``host:SOCKET``. Over SQLite, and with ``--drain``, it ends at the end of the log and prints
``DONE``; else it runs until SIGTERM. ``REPAIRED n`` tells of phantoms that the store dropped on
opening. Around every write it prints where it is, so that a killer can aim: ``I`` before an intent,
``i`` after it, ``L`` before an insert, ``l`` after it.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from callmeter.log.kafka_admin import read_log_id
from callmeter.log.kafka_consumer import KafkaGroupReader
from callmeter.log.kafka_settings import KafkaSettings
from callmeter.log.sqlite_log import SqliteLog
from callmeter_sinks.clickhouse.chdb_store import ChdbStore
from callmeter_sinks.clickhouse.migrate import migrate
from callmeter_sinks.ranges import RangeLimits
from callmeter_sinks.sink import Sink
from callmeter_sinks.source import SqliteSource
from support.store_host import RemoteStore

LIMITS = RangeLimits(max_events=60, linger_s=0.0)
#: Longer than it takes somebody who reads the mark to send a signal.
_AIM_S = 0.002


def session_s() -> float:
    """Of members of the group: short, so that the partitions of a dead one are soon given on."""
    return 2.0


class TalkingStore(ChdbStore):
    """Says what it does."""

    def insert_block(self, table, columns, block, **more):
        with_marks(super().insert_block, table, columns, block, **more)


class TalkingRemoteStore(RemoteStore):
    """Says what it does."""

    def insert_block(self, table, columns, block, **more):
        with_marks(super().insert_block, table, columns, block, **more)


def with_marks(insert, table, columns, block, **more):
    mark = {"sink_intents": "I", "landing": "L"}.get(table, "-")
    print(mark, flush=True)
    time.sleep(_AIM_S)
    insert(table, columns, block, **more)
    print(mark.lower(), flush=True)


def main(log: str, where: str, *options: str) -> None:
    drain = "--drain" in options
    # Told by name, not by looking: a host that was killed just now has no socket.
    if where.startswith("host:"):
        store = TalkingRemoteStore(Path(where.removeprefix("host:")))
    else:
        store = TalkingStore(where)
        print(f"REPAIRED {len(store.repaired)}", flush=True)
        migrate(store)
    if log.startswith("kafka://"):
        over_kafka(log, store, drain=drain)
    else:
        with SqliteLog(Path(log), partitions=2) as opened:
            Sink(store, SqliteSource(opened), limits=LIMITS).drain()
        drain = True
    if drain:
        print("DONE", flush=True)
    store.close()


def over_kafka(url: str, store: TalkingStore | TalkingRemoteStore, *, drain: bool) -> None:
    settings = KafkaSettings.from_url(url, {})
    source = KafkaGroupReader(
        settings,
        "metered",
        group="sink",
        log_id=asyncio.run(read_log_id(settings)),
        whole=drain,
        session_s=session_s(),
    )
    try:
        # Small ranges make many moments to kill at; what is left in the end may go in large ones.
        sink = Sink(store, source, limits=None if drain else LIMITS)
        signal.signal(signal.SIGTERM, lambda *_: sink.stop())
        print("READY", flush=True)
        if drain:
            sink.drain()
        else:
            sink.run()
    finally:
        source.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
