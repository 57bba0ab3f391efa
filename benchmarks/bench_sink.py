"""The sink against clickhouse-connect inserting the same bytes by hand.

    python benchmarks/bench_sink.py [--json] [--rounds 5] [--events 200000]

By hand: the landing blocks are made beforehand and inserted one after the other, with the same
settings and a token. The sink reads its records from a SQLite log, checks them, builds the blocks,
and writes claim, intent and insert. Both go through the whole schema of one chDB directory, in
turns, so that what else the machine does hits both. Ratio = the sink's rate / the rate by hand,
median over rounds. The engine runs in this process, so its CPU time counts in both: that ratio is
printed too, because another program on the machine disturbs it less.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from callmeter.log.record import LogRecord, NewRecord
from callmeter.log.sqlite_log import SqliteLog
from callmeter_sinks.clickhouse.migrate import migrate
from callmeter_sinks.clickhouse.opening import open_store
from callmeter_sinks.clickhouse.store import Store
from callmeter_sinks.ranges import RangeLimits
from callmeter_sinks.rows import LANDING_COLUMNS, landing_block, parse
from callmeter_sinks.sink import Sink
from callmeter_sinks.source import SqliteSource
from support.fake_store import FakeSource
from support.metered import MeteredStream

SIZES = (1_000, 20_000, 100_000)
TARGET = 0.8


def ranges_of(log_id: str, size: int, count: int) -> list[list[bytes]]:
    """``count`` checkpoints of ``size`` calls each, in envelopes of 200."""
    stream = MeteredStream(log_id, 0, months=1, plain=True)
    return [stream.checkpoint(envelopes=size // 200, events=200) for _ in range(count)]


class Cost(NamedTuple):
    """Of one way through one round."""

    wall_s: float
    cpu_s: float


@contextmanager
def costing(costs: list[Cost]) -> Iterator[None]:
    began_s, began_cpu_s = time.perf_counter(), time.process_time()
    yield
    costs.append(Cost(time.perf_counter() - began_s, time.process_time() - began_cpu_s))


def by_hand(store: Store, ranges: Sequence[Sequence[bytes]], costs: list[Cost]) -> None:
    blocks = []
    offset = 0
    for values in ranges:
        records = [
            parse(LogRecord("metered", 0, offset + number, 0, None, value))
            for number, value in enumerate(values)
        ]
        offset += len(records)
        blocks.append(landing_block("metered", 0, records))
    with costing(costs):
        for block in blocks:
            store.insert_block("landing", LANDING_COLUMNS, block, token=uuid.uuid4().hex)


def by_sink(store: Store, log: SqliteLog, size: int, costs: list[Cost]) -> None:
    limits = RangeLimits(max_events=size, linger_s=60.0, max_bytes=256 * 2**20)
    sink = Sink(store, SqliteSource(log), name=f"bench-{uuid.uuid4().hex[:8]}", limits=limits)
    with costing(costs):
        sink.drain()


class _Nowhere:
    """A store that takes everything: what is left is the sink's own work."""

    replicated = False
    embedded = True
    cluster = None
    sharding = None
    name = "nowhere"

    def __init__(self) -> None:
        self.claim: tuple[int, str] | None = None

    def query(self, sql, params=None, settings=None):
        class Answer:
            rows = [self.claim] if "sink_claims" in sql and self.claim else []

        return Answer

    def insert_block(self, table, columns, block, **_):
        if table == "sink_claims":
            row = json.loads(block)
            self.claim = (row["generation"], row["owner"])


def own_work_us(size: int) -> float:
    """Microseconds of Python per event: header, checks, digest, block."""
    source = FakeSource(str(uuid.uuid4()))
    ranges = ranges_of(source.log_id, size, max(1, 100_000 // size))
    for values in ranges:
        source.append(0, values)
    source.read = _Slices(source)
    limits = RangeLimits(max_events=size, linger_s=60.0, max_bytes=256 * 2**20)
    began_s = time.process_time()
    events = Sink(_Nowhere(), source, limits=limits).drain().events
    return (time.process_time() - began_s) / events * 1e6


class _Slices:
    """Reads of a list by position, as cheap as a read can be."""

    def __init__(self, source: FakeSource) -> None:
        self._records = source.records

    def __call__(self, partition, offset, *, max_records, max_bytes):
        return self._records[partition][offset : offset + max_records]


def measure(size: int, events: int, rounds: int, folder: Path) -> dict[str, float]:
    """Rates at one range size; a store of its own."""
    store = open_store(f"chdb:{folder / 'store'}")
    hand: list[Cost] = []
    sunk: list[Cost] = []
    try:
        migrate(store)
        count = max(2, events // size)
        by_hand(store, ranges_of(str(uuid.uuid4()), size, 1), [])  # caches and first parts
        for number in range(rounds):
            with SqliteLog(folder / f"log{number}.db", partitions=1) as log:
                ranges = ranges_of(log.log_id, size, count)
                for values in ranges:
                    log.append([NewRecord("metered", b"s", value, 0) for value in values])
                by_itself = ranges_of(str(uuid.uuid4()), size, count)
                turns = [
                    lambda ranges=by_itself: by_hand(store, ranges, hand),
                    lambda log=log: by_sink(store, log, size, sunk),
                ]
                for turn in turns if number % 2 else reversed(turns):
                    turn()
        stored = store.query("SELECT sum(bytes_on_disk) / sum(rows) FROM system.parts "
                             "WHERE active AND table = 'calls'").rows[0][0]  # fmt: skip
    finally:
        store.close()
    pairs = list(zip(hand, sunk, strict=True))
    return {
        "by_hand_events_s": size * count / statistics.median(h.wall_s for h in hand),
        "sink_events_s": size * count / statistics.median(s.wall_s for s in sunk),
        "ratio": statistics.median(h.wall_s / s.wall_s for h, s in pairs),
        "cpu_ratio": statistics.median(h.cpu_s / s.cpu_s for h, s in pairs),
        "python_us_per_event": own_work_us(size),
        "calls_bytes_per_row": float(stored),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--events", type=int, default=200_000, help="per round and way")
    options = parser.parse_args()
    figures: dict[str, float] = {}
    targets = []
    print("range     by hand      sink        ratio   in CPU  python/event  calls on disk")
    for size in SIZES:
        # Small ranges cost by the insert, not by the event: a tenth of the events tells as much.
        events = options.events if size > 1_000 else options.events // 10
        with tempfile.TemporaryDirectory(prefix="callmeter-bench-") as folder:
            found = measure(size, events, options.rounds, Path(folder))
        print(
            f"{size:7,}  {found['by_hand_events_s']:8,.0f}/s  {found['sink_events_s']:8,.0f}/s  "
            f"{found['ratio']:6.1%}  {found['cpu_ratio']:6.1%}  "
            f"{found['python_us_per_event']:8.2f} µs  "
            f"{found['calls_bytes_per_row']:6.1f} B/row"
        )
        figures |= {f"{name}_{size}": round(value, 4) for name, value in found.items()}
        holds = found["ratio"] >= TARGET
        targets.append(
            {"what": f"sink / by hand, ranges of {size}", "value": round(found["ratio"], 4),
             "target": TARGET, "holds": holds}
        )  # fmt: skip
        print(f"         target ratio >= {TARGET:.0%}: {'holds' if holds else 'MISSED'}")
    if options.json:
        machine = f"{platform.machine()} {platform.python_version()}"
        print(
            json.dumps({"name": "sink", "machine": machine, "figures": figures, "targets": targets})
        )


if __name__ == "__main__":
    main()
