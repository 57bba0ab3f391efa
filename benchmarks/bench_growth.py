"""How a worker's cost and memory grow: with dimensions, sources, envelopes, partitions, state.

    python benchmarks/bench_growth.py                # all but Kafka
    python benchmarks/bench_growth.py --kafka        # partitions and recovery, over its own Kafka
    python benchmarks/bench_growth.py --only sources,memory [--events N] [--json]

dimensions  CPU per event and bytes written, by distinct combinations of dimensions in a minute
sources     CPU per event, by programs that send; memory of one that speaks and one that has ended
envelopes   CPU per event, by events in an envelope
memory      bytes of an open call
recovery    time to restore a partition, by state rows (with --kafka from Kafka, else from memory)
partitions  events a second and CPU of ``callmeter worker``, by partitions (needs --kafka)

CPU is process time of one thread, the least of ``--rounds``; lines are those of bench_meter.py.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import platform
import random
import tempfile
import time
import tracemalloc
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bench_latency import started, until_ready
from bench_meter import NOW_US, call_line, records, run_meter, run_orjson

from callmeter.log.kafka_settings import KafkaSettings
from callmeter.log.record import LogRecord, NewRecord
from callmeter.pricing import Pricer, installed_book
from callmeter.schema.envelope import Header, encode
from callmeter_processors.limits import MeterLimits
from callmeter_processors.meter import PartitionMeter
from callmeter_processors.rows import encode_row, row_key
from callmeter_processors.sequence import Sources
from callmeter_processors.tracker import Tracker

LOG = "018f0000-0000-7000-8000-000000000001"
Figures = dict[str, Any]


def source_names(count: int) -> list[str]:
    return [str(uuid.UUID(int=i + 1, version=4)) for i in range(count)]


def least_cpu(options: argparse.Namespace, run: Callable[[], float], lines: list[bytes]) -> Figures:
    """CPU of an event in µs and in ``orjson.loads`` of its line, the least of rounds in turn.

    On a machine that others use the second figure is the one to compare.
    """
    rounds = [(run(), run_orjson(lines)) for _ in range(options.rounds)]
    mine, floor = min(r[0] for r in rounds), min(r[1] for r in rounds)
    return {
        "cpu_us_per_event": round(mine / len(lines) * 1e6, 2),
        "x_orjson": round(mine / floor, 1),
    }


def dimensions(options: argparse.Namespace) -> Iterator[tuple[str, Figures]]:
    pricer = Pricer(installed_book())
    for dims in (10**3, 10**4, 10**5, 10**6):
        rng = random.Random(1)
        lines = [call_line(rng, dims) for _ in range(options.events)]
        recs = records(lines, 200, 50)
        cpu = least_cpu(options, lambda recs=recs: run_meter(pricer, recs, 200), lines)
        meter = PartitionMeter(LOG, 0, pricer)
        for record in recs:
            meter.process(record)
        outputs = meter.checkpoint().outputs
        deltas = [o.value or b"" for o in outputs if b'"type":"deltas"' in (o.value or b"")[:40]]
        yield (
            f"{dims:,}",
            {
                **cpu,
                "delta_lines_per_event": round(
                    sum(d.count(b"\n") for d in deltas) / options.events, 3
                ),
                "delta_bytes_per_event": round(sum(map(len, deltas)) / options.events),
            },
        )


def sources(options: argparse.Namespace) -> Iterator[tuple[str, Figures]]:
    pricer = Pricer(installed_book())
    rng = random.Random(1)
    lines = [call_line(rng, 1000) for _ in range(options.events)]
    for count in (10**2, 10**3, 10**4, 10**5):
        recs = records(lines, 10, count)
        cpu = least_cpu(options, lambda recs=recs: run_meter(pricer, recs, 10), lines)
        yield f"{count:,}", {**cpu, **source_memory(count)}


def source_memory(count: int) -> Figures:
    """Bytes of a source that speaks, one that has ended, and their rows."""
    names = source_names(count)
    held: Figures = {}
    gc.collect()
    tracemalloc.start()
    tracked = Sources(MeterLimits(ends_per_look=count))
    for name in names:
        # A text of its own, as from a record: the tracker holds it.
        tracked.take(name[:18] + name[18:], 0, NOW_US, last=False, project="shop", service="api")
    tracked.drain()
    gc.collect()
    held["speaking_bytes"] = round(tracemalloc.get_traced_memory()[0] / count)
    tracked.fall_silent(NOW_US + 2 * 3600 * 10**6, 0)
    tracked.fall_silent(NOW_US + 2 * 3600 * 10**6, 0)
    changed, _ = tracked.drain()
    held["row_bytes"] = max(len(encode_row(LOG, t)) for t in changed.values())
    del changed
    gc.collect()
    held["ended_bytes"] = round(tracemalloc.get_traced_memory()[0] / count)
    tracemalloc.stop()
    return held


def envelopes(options: argparse.Namespace) -> Iterator[tuple[str, Figures]]:
    pricer = Pricer(installed_book())
    rng = random.Random(1)
    lines = [call_line(rng, 1000) for _ in range(options.events)]
    for size in (1, 10, 200):
        recs = records(lines, size, 50)
        yield f"{size}", least_cpu(options, lambda r=recs, s=size: run_meter(pricer, r, s), lines)


def memory() -> Iterator[tuple[str, Figures]]:
    """Open calls of 100 sources, 500 each."""
    calls, each = 50_000, 500
    recs = []
    for offset, name in enumerate(source_names(calls // each)):
        lines = [begin_line(offset * each + i) for i in range(each)]
        header = Header(name, 0, each, NOW_US, "shop", "prod", "api", "bench/1")
        recs.append(LogRecord("events", 0, offset, NOW_US, name.encode(), encode(header, lines)))
    meter = PartitionMeter(LOG, 0, Pricer(installed_book()))
    meter.process(recs[0])
    meter.checkpoint()
    gc.collect()
    tracemalloc.start()
    for record in recs[1:]:
        meter.process(record)
    done = meter.checkpoint()
    row_bytes = sum(len(v or b"") for k, v in done.rows.items() if k.startswith(b"o:"))
    del done
    gc.collect()
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert meter.figures()["open_calls"] == calls
    yield (
        "open call",
        {
            "memory_bytes": round(held / (calls - each)),
            "row_bytes": round(row_bytes / (calls - each)),
        },
    )


def begin_line(number: int) -> bytes:
    event = {
        "kind": "call_begin", "ts_us": NOW_US, "started_us": NOW_US, "operation": "chat",
        "call_id": str(uuid.UUID(int=number + 1, version=4)), "trace_id": f"{number + 1:032x}",
        "provider": "openai", "model": "gpt-4o-mini", "user": f"user-{number % 1000}",
        "session": f"session-{number % 1000}", "tags": {"team": f"team-{number % 10}"},
    }  # fmt: skip
    return json.dumps(event, separators=(",", ":")).encode()


def state_rows(count: int) -> dict[bytes, bytes]:
    """Rows of so many sources; one in ten speaks, the others have closed."""
    rows = {}
    for number, name in enumerate(source_names(count)):
        tracker = Tracker(1 + number % 100, NOW_US)
        tracker.last = bool(number % 10)
        tracker.project, tracker.service = "shop", "api"
        rows[row_key(name)] = encode_row(LOG, tracker)
    return rows


def recovery(kafka_url: str | None) -> Iterator[tuple[str, Figures]]:
    for count in (10**3, 10**4, 10**5, 10**6)[: 3 if kafka_url else 4]:
        rows = state_rows(count)
        meter = PartitionMeter(LOG, 0, Pricer(installed_book()))
        began = time.process_time()
        meter.restore(rows)
        found: Figures = {
            "state_mib": round(sum(map(len, rows.values())) / 2**20, 1),
            "restore_cpu_s": round(time.process_time() - began, 3),
        }
        if kafka_url is not None:
            found["open_s"] = round(asyncio.run(open_over_kafka(kafka_url, rows, count)), 2)
        yield f"{count:,} rows", found


async def open_over_kafka(url: str, rows: dict[bytes, bytes], count: int) -> float:
    """Seconds to fence, read and restore one partition whose state topic holds the rows."""
    from callmeter.clock import SystemClock
    from callmeter.log.kafka_admin import apply_topics
    from callmeter.log.kafka_transaction import TransactionWriter
    from callmeter.log.position import POSITION_KEY, encode_position
    from callmeter_processors.meter import meter_factory
    from callmeter_processors.runtime.exact import ExactPartition, Stage
    from callmeter_processors.runtime.stats import RuntimeStats

    settings = KafkaSettings.from_url(f"{url}?prefix=recovery-{count}")
    applied = await apply_topics(settings, partitions=1)
    own = {k: v.replace(LOG.encode(), applied.log_id.encode()) for k, v in rows.items()}
    own[POSITION_KEY] = encode_position(applied.log_id, 0)
    writer = TransactionWriter(settings, "filler", partitions=1, timeout_s=60)
    await writer.start()
    items = list(own.items())
    for start in range(0, len(items), 5000):
        part = items[start : start + 5000]
        await writer.commit([NewRecord("meter-state", k, v, 0) for k, v in part])
    await writer.stop()
    stage = Stage(settings, applied.log_id, 1)
    factory, stats = meter_factory(Pricer(installed_book())), RuntimeStats()
    began_s = time.monotonic()
    opened = await ExactPartition.open(stage, factory, 0, SystemClock(), stats)
    took_s = time.monotonic() - began_s
    await opened.close()
    assert stats.partitions[0].restored_rows == count + 1
    return took_s


def partitions(options: argparse.Namespace, kafka_url: str) -> Iterator[tuple[str, Figures]]:
    """A worker reads what is there already, in envelopes of 200, as fast as it can."""
    rng = random.Random(1)
    lines = [call_line(rng, 1000) for _ in range(20_000)]
    for count in (4, 32):
        yield f"{count}", asyncio.run(drain_by_worker(options, kafka_url, lines, count))


async def drain_by_worker(
    options: argparse.Namespace, kafka_url: str, lines: list[bytes], count: int
) -> Figures:
    from callmeter.log.kafka_admin import apply_topics
    from callmeter.log.kafka_appender import KafkaAppender

    url = f"{kafka_url}?prefix=partitions-{count}"
    settings = KafkaSettings.from_url(url)
    await apply_topics(settings, partitions=count)
    appender = await KafkaAppender.start(settings, timeout_s=60)
    size, names, now_us = 200, source_names(640), time.time_ns() // 1000
    shift = [line.replace(b"179000", str(now_us)[:6].encode()) for line in lines]
    envelopes_sent = options.kafka_events // size
    for begin in range(0, envelopes_sent, 50):
        batch = []
        for number in range(begin, min(begin + 50, envelopes_sent)):
            name = names[number % len(names)]
            part = [shift[(number * size + i) % len(shift)] for i in range(size)]
            header = Header(
                name, number // len(names), size, now_us, "shop", "prod", "api", "bench/1"
            )
            batch.append(NewRecord("events", name.encode(), encode(header, part)))
        await appender.append(batch)
    await appender.close()
    return await asyncio.to_thread(watch_worker, url, envelopes_sent * size)


def watch_worker(url: str, events_due: int) -> Figures:
    from urllib.request import urlopen

    from prometheus_client.parser import text_string_to_metric_families

    with started("worker", "--kafka", url, "--metrics", "0") as worker:
        assert worker.stdout is not None
        at = worker.stdout.readline().split()[-1]

        def scrape() -> dict[str, float]:
            with urlopen(at, timeout=30) as answer:
                families = text_string_to_metric_families(answer.read().decode())
                return {s.name: s.value for f in families for s in f.samples}

        until_ready(at.removesuffix("/metrics"))
        # From the first checkpoint, which is when events are first counted, to the last.
        name = "callmeter_worker_events_total"
        marks: list[tuple[float, dict[str, float]]] = []
        until_s = time.monotonic() + 300
        while not marks or marks[-1][1][name] < events_due:
            assert time.monotonic() < until_s, marks[-1:]
            found = scrape()
            if name in found:
                marks.append((time.monotonic(), found))
            time.sleep(0.1)
        (began_s, first), (ended_s, last) = marks[0], marks[-1]
        events = last[name] - first[name]
        cpu_s = last["process_cpu_seconds_total"] - first["process_cpu_seconds_total"]
        transactions = last["callmeter_worker_checkpoint_seconds_count"]
        return {
            "events_per_s": round(events / max(ended_s - began_s, 1e-3)),
            "cpu_us_per_event": round(cpu_s / max(events, 1) * 1e6, 1),
            "rss_mib": round(last["process_resident_memory_bytes"] / 2**20),
            "events_per_transaction": round(last[name] / transactions),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="")
    parser.add_argument("--events", type=int, default=40_000)
    parser.add_argument("--kafka-events", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--kafka", action="store_true", help="start a Kafka, for what needs one")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    parts: dict[str, Callable[[], Iterator[tuple[str, Figures]]]] = {
        "dimensions": lambda: dimensions(options),
        "sources": lambda: sources(options),
        "envelopes": lambda: envelopes(options),
        "memory": memory,
        "recovery": lambda: recovery(None),
    }
    with tempfile.TemporaryDirectory() as scratch:
        if options.kafka:
            from callmeter.log.kafka_server import KafkaServer

            with KafkaServer(Path(scratch) / "kafka") as server:
                url = server.url
                run(options, {
                    "recovery": lambda: recovery(url),
                    "partitions": lambda: partitions(options, url),
                })  # fmt: skip
        else:
            run(options, parts)


def run(
    options: argparse.Namespace,
    parts: dict[str, Callable[[], Iterator[tuple[str, Figures]]]],
) -> None:
    wanted = options.only.split(",") if options.only else list(parts)
    figures: Figures = {}
    print(f"load {os.getloadavg()[0]:.1f}", flush=True)
    for name in wanted:
        for case, found in parts[name]():
            figures[f"{name}: {case}"] = found
            print(f"{name:>11} {case:>14}  {found}", flush=True)
    if options.json:
        machine = f"{platform.machine()} Python {platform.python_version()}"
        print(json.dumps({"name": "growth", "machine": machine, "figures": figures, "targets": []}))


if __name__ == "__main__":
    main()
