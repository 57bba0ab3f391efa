"""How long partitions stand still when a worker joins, leaves, or is killed, under steady traffic.

    python benchmarks/bench_rebalance.py [--partitions 8] [--json]

A Kafka of its own, real meters (``callmeter worker``), 320 envelopes of ten calls a second over 64
sources. A stall is the longest time between two checkpoints of one partition, by the times of what
was written; the longest of all partitions is printed. Exactness of the same changes is a test:
tests/integration/test_fleet_changes.py.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import random
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Self

from bench_latency import started, until_ready
from bench_meter import call_line

from callmeter.log.kafka_admin import apply_topics
from callmeter.log.kafka_appender import KafkaAppender
from callmeter.log.kafka_server import KafkaServer
from callmeter.log.kafka_settings import KafkaSettings
from callmeter.log.kafka_state import open_partition
from callmeter.log.record import NewRecord
from callmeter.schema.envelope import Header, encode

TARGET_S = 10.0
SOURCES, CALLS, EVERY_S = 64, 10, 0.05
SETTLED_S = 4.0
SESSION_S = 6.0


class Traffic:
    """Sixteen envelopes each 50 ms, in turn from all sources, until told to stop."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._send()), daemon=True)

    async def _send(self) -> None:
        rng = random.Random(1)
        lines = [call_line(rng, 100) for _ in range(1000)]
        names = [str(uuid.UUID(int=i + 1, version=4)) for i in range(SOURCES)]
        appender = await KafkaAppender.start(self._settings, timeout_s=60)
        number = 0
        while not self._stop.is_set():
            batch = []
            for _ in range(16):
                name, seq = names[number % SOURCES], number // SOURCES
                header = Header(name, seq, CALLS, time.time_ns() // 1000, "shop")
                at = number * CALLS % (len(lines) - CALLS)
                value = encode(header, lines[at : at + CALLS])
                batch.append(NewRecord("events", name.encode(), value))
                number += 1
            await appender.append(batch)
            await asyncio.sleep(EVERY_S)
        await appender.close()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(60)


@contextmanager
def ready_worker(url: str) -> Iterator[object]:
    with started("worker", "--kafka", url, "--metrics", "0") as worker:
        assert worker.stdout is not None
        until_ready(worker.stdout.readline().split()[-1].removesuffix("/metrics"))
        yield worker


async def longest_stall_s(settings: KafkaSettings, partitions: int, span: tuple[int, int]) -> float:
    """The longest time in the span (µs since the epoch) in which a partition wrote nothing."""
    longest = 0
    for partition in range(partitions):
        async with open_partition(settings, "metered", partition) as reader:
            times = [r.timestamp_us async for r in reader.read(*await reader.offsets())]
        within = [t for t in times if span[0] <= t <= span[1]]
        if within:  # a partition without a source writes nothing at any time
            longest = max(longest, *(b - a for a, b in pairwise([span[0], *within, span[1]])))
    return longest / 1e6


def measure(url: str, partitions: int) -> dict[str, float]:
    settings = KafkaSettings.from_url(url)
    asyncio.run(apply_topics(settings, partitions=partitions))
    spans: dict[str, tuple[int, int]] = {}

    def mark() -> int:
        return time.time_ns() // 1000

    with Traffic(settings), ready_worker(url):
        time.sleep(SETTLED_S)
        begun = mark()
        with ready_worker(url):
            time.sleep(SETTLED_S)
            spans["joins"] = (begun, mark())
            begun = mark()
        time.sleep(SETTLED_S)
        spans["leaves"] = (begun, mark())
        with ready_worker(url) as victim:
            time.sleep(SETTLED_S)
            begun = mark()
            victim.kill()  # type: ignore[attr-defined]
            time.sleep(SESSION_S + SETTLED_S)
            spans["killed"] = (begun, mark())
    return {
        name: round(asyncio.run(longest_stall_s(settings, partitions, span)), 1)
        for name, span in spans.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--partitions", type=int, default=8)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    print(f"load {os.getloadavg()[0]:.1f}", flush=True)
    with tempfile.TemporaryDirectory() as scratch, KafkaServer(Path(scratch) / "kafka") as server:
        found = measure(server.url, options.partitions)
    targets = [
        {"what": f"stall when a worker {what}, s", "value": value, "target": TARGET_S,
         "holds": value <= TARGET_S}
        for what, value in found.items()
    ]  # fmt: skip
    for target in targets:
        says = "holds" if target["holds"] else "missed"
        print(f"{target['what']}: {target['value']} (target ≤ {TARGET_S:g}: {says})")
    if options.json:
        machine = f"{platform.machine()} Python {platform.python_version()}"
        line = {"name": "rebalance", "machine": machine, "figures": found, "targets": targets}
        print(json.dumps(line))


if __name__ == "__main__":
    main()
