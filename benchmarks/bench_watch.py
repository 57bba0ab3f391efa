"""What the watch costs: CPU per event behind it, rows and records per checkpoint, recovery.

    python benchmarks/bench_watch.py [--events N] [--users N] [--json]

A meter with 20 budgets, 3 of them per user, makes the spend records of one partition of ``spend``
out of all calls; the watch folds them, one checkpoint for each of the meter's (250 ms at 20,000
events/s is 5,000 events). What a record costs on Kafka, 20 µs, is not in the CPU figures.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import time
import tracemalloc

from bench_meter import NOW_US, budgets, call_line, records

from callmeter.log.record import LogRecord
from callmeter.pricing import Pricer, installed_book
from callmeter_processors.meter import PartitionMeter
from callmeter_processors.watch.step import PartitionWatch

SIZE = 200
PER_CHECKPOINT = 25


def spend_records(events: int, seed: int) -> list[LogRecord]:
    """The records of ``spend`` for so many calls, all in one partition."""
    rng = random.Random(seed)
    meter = PartitionMeter("bench", 0, Pricer(installed_book()))
    meter.configure(budgets(), 0, 1)
    found: list[LogRecord] = []
    lines = [call_line(rng, 1000) for _ in range(events)]
    for i, record in enumerate(records(lines, SIZE, sources=100), 1):
        meter.process(record)
        if i % PER_CHECKPOINT == 0:
            found += [
                LogRecord("spend", 0, len(found), NOW_US, out.key, out.value)
                for out in meter.checkpoint().outputs
                if out.topic == "spend"
            ]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    recs = spend_records(options.events, options.seed)
    checkpoints = options.events // SIZE // PER_CHECKPOINT
    per = len(recs) / checkpoints
    definitions = budgets()
    watch = PartitionWatch("bench", 0)
    watch.configure(definitions, 0, 1)
    rows: dict[bytes, bytes] = {}
    outputs = row_count = row_bytes = 0
    folded_s = written_s = 0.0
    for n in range(checkpoints):
        part = recs[round(n * per) : round((n + 1) * per)]
        began = time.process_time()
        for record in part:
            watch.process(record)
        folded_s += time.process_time() - began
        began = time.process_time()
        done = watch.checkpoint()
        written_s += time.process_time() - began
        outputs += len(done.outputs)
        row_count += len(done.rows)
        row_bytes += sum(len(value or b"") for value in done.rows.values())
        for key, value in done.rows.items():
            if value is None:
                rows.pop(key, None)
            else:
                rows[key] = value
    began = time.process_time()
    again = PartitionWatch("bench", 0)
    tracemalloc.start()
    again.restore(rows)
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    restore_s = time.process_time() - began
    entities = sum(len(book.entities) for book in again._books.values())
    lines = sum((record.value or b"").count(b"\n") - 1 for record in recs)
    figures = {
        "lines_per_event": round(lines / options.events, 2),
        "fold_us_per_event": round(folded_s / options.events * 1e6, 2),
        "checkpoint_us_per_event": round(written_s / options.events * 1e6, 2),
        "outputs_per_checkpoint": round(outputs / checkpoints),
        "rows_per_checkpoint": round(row_count / checkpoints, 1),
        "row_kib_per_checkpoint": round(row_bytes / checkpoints / 1024),
        "entities": entities,
        "state_mib": round(sum(map(len, rows.values())) / 2**20, 1),
        "restore_s_traced": round(restore_s, 2),
        "bytes_per_entity": round(held / entities),
    }
    for name, value in figures.items():
        print(f"{name:28}{value}")
    if options.json:
        machine = (
            f"{platform.machine()} {platform.python_implementation()} {platform.python_version()}"
        )
        print(json.dumps({"name": "watch", "machine": machine, "figures": figures, "targets": []}))


if __name__ == "__main__":
    main()
