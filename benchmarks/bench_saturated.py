"""As many events as the SDK can ship over a real Kafka, each one checked at the consumer.

    python benchmarks/bench_saturated.py                    # starts a Kafka of its own
    python benchmarks/bench_saturated.py --kafka localhost:9092 --processes 2
    python benchmarks/bench_saturated.py --json             # ends with one line of JSON

Each process meters as fast as it can without outrunning its own memory: it waits a moment while
three quarters of it are used. Afterwards all records are read back: every event must be there,
once.
CPU is that of the producing processes with everything in them, callers' time included. Every call
is timed, which adds some 0.1 s to the CPU of a million; the shipper's and the transport's threads
are shown apart. What may stall a caller is shown beside it: the garbage collector's pauses on its
thread, and how often it was made to give up its core.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import threading
import time
from array import array
from bisect import bisect_right
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from uuid import uuid4

import orjson

import callmeter
from callmeter.schema.envelope import decode_header, split_lines
from callmeter.sdk import api

now = time.perf_counter_ns
LOOK_EVERY = 200
SHARES = (("50", 0.5), ("99", 0.99), ("999", 0.999))
TARGETS = [
    ("delivered_per_s", 100_000, True, "events/s delivered and checked at the consumer"),
    ("cpu_s_per_million", 8.0, False, "CPU seconds per million events, all threads"),
    ("call_p999_us", 200.0, False, "p99.9 of a call, µs"),
    ("lost", 0, False, "events lost"),
    ("twice", 0, False, "events that came twice"),
]


def call(number: int) -> None:
    """A generation with 12 attributes."""
    with callmeter.generation(
        "answer",
        model="gpt-4o-mini",
        provider="openai",
        temperature=0.7,
        max_tokens=512,
        user="user-1234",
        session="session-9f8e7d6c",
        route="/v1/answer",
        tenant="acme",
        region="eu-west-1",
        number=number,
    ) as one:
        one.usage(input=1234, output=567)
        one.set(finish_reason="stop", response_model="gpt-4o-mini-2024-07-18")


def metric(number: int) -> None:
    callmeter.metric("loss", 0.25, step=number)


KINDS = {"call": call, "metric": metric}


class Pauses:
    """The garbage collector's, on this thread."""

    def __init__(self) -> None:
        self.count, self.total_ns, self.most_ns = 0, 0, 0
        self._began = 0
        self._thread = threading.get_ident()
        gc.callbacks.append(self._saw)

    def _saw(self, phase: str, _: dict[str, int]) -> None:
        if threading.get_ident() != self._thread:
            return
        if phase == "start":
            self._began = now()
        else:
            took = now() - self._began
            self.count += 1
            self.total_ns += took
            self.most_ns = max(self.most_ns, took)


def thread_cpu_s() -> dict[str, float]:
    """CPU of the SDK's own threads, by name."""
    clocks = {t.name: time.pthread_getcpuclockid(t.ident or 0) for t in threading.enumerate()}
    return {
        name: time.clock_gettime(clock)
        for name, clock in clocks.items()
        if name.startswith("callmeter")
    }


def produce(url: str, kind: str, events: int, cap: int, spool: str | None) -> dict[str, Any]:
    """One process's share; runs in a process of its own."""
    settings = callmeter.Settings(
        url=url, max_queue_bytes=cap, heartbeat_s=0.0, spool_dir=spool, durable=spool is not None
    )
    client = api.use(callmeter.Client(settings))
    emit = KINDS[kind]
    for number in range(2_000):  # connected and warm
        emit(-1 - number)
    client.flush(30.0)
    warm = client.stats().delivered
    times, most_bytes = array("q"), 0
    pauses, switches = Pauses(), resource.getrusage(resource.RUSAGE_THREAD).ru_nivcsw
    rss_before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    before = thread_cpu_s()
    cpu, own, begun = time.process_time(), time.thread_time(), now()
    for first in range(0, events, LOOK_EVERY):
        while (held := client.stats().bytes) > cap * 0.75:
            most_bytes = max(most_bytes, held)
            time.sleep(0.001)
        most_bytes = max(most_bytes, held)
        for number in range(first, min(first + LOOK_EVERY, events)):
            at = now()
            emit(number)
            times.append(now() - at)
    result = client.flush(120.0)
    took_s, cpu_s = (now() - begun) / 1e9, time.process_time() - cpu
    own_s = time.thread_time() - own
    threads = {name: used - before.get(name, 0.0) for name, used in thread_cpu_s().items()}
    return {
        "warm": warm,
        "delivered": result.delivered - warm,
        "dropped": dict(result.dropped),
        "took_s": took_s,
        "cpu_s": cpu_s,
        "caller_cpu_s": own_s,
        "shipper_cpu_s": threads.pop("callmeter", 0.0),
        "transport_cpu_s": sum(threads.values()),
        "queue_mib": most_bytes / 2**20,
        "rss_growth_mib": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - rss_before) / 1024,
        "gc_pauses": pauses.count,
        "gc_ms": pauses.total_ns / 1e6,
        "gc_most_us": pauses.most_ns / 1000,
        "preempted": resource.getrusage(resource.RUSAGE_THREAD).ru_nivcsw - switches,
        "times": sorted(times),
    }


def consumed(bootstrap: str, topic: str) -> tuple[int, int, float]:
    """Different events at the consumer, events that are there twice, and MiB of records."""
    from confluent_kafka import Consumer, TopicPartition

    reader = Consumer(
        {"bootstrap.servers": bootstrap, "group.id": uuid4().hex, "enable.auto.commit": False}
    )
    partitions = reader.list_topics(topic, timeout=30).topics[topic].partitions
    seen: set[tuple[str, int]] = set()
    ids: Counter[Any] = Counter()
    size = 0
    for partition in partitions:
        place = TopicPartition(topic, partition, 0)
        _, end = reader.get_watermark_offsets(place, timeout=30)
        reader.assign([place])
        at = 0
        while at < end:
            message = reader.poll(30)
            if message is None or message.error():
                raise SystemExit(f"cannot read {topic}: {message}")
            at = message.offset() + 1
            head, *lines = split_lines(message.value())
            size += len(message.value())
            header = decode_header(head)
            if (header.source, header.seq) in seen:
                continue  # sent again: counts once behind the meter
            seen.add((header.source, header.seq))
            for line in lines:
                event = orjson.loads(line)
                if event["kind"] == "call_end":
                    ids[event["call_id"]] += 1
                elif event["kind"] == "metric":
                    ids[header.source, event["step"]] += 1
    reader.close()
    return len(ids), sum(times - 1 for times in ids.values() if times > 1), size / 2**20


def run(args: argparse.Namespace) -> dict[str, Any]:
    from confluent_kafka.admin import AdminClient, NewTopic

    with ExitStack() as stack:
        place = stack.enter_context(tempfile.TemporaryDirectory())
        bootstrap = args.kafka
        if bootstrap is None:
            from callmeter.log.kafka_server import KafkaServer

            bootstrap = stack.enter_context(KafkaServer(Path(place) / "kafka")).bootstrap
        prefix = f"bench{uuid4().hex[:8]}"
        admin = AdminClient({"bootstrap.servers": bootstrap})
        made = admin.create_topics(
            [NewTopic(f"{prefix}.events", num_partitions=8, replication_factor=1)]
        )
        made[f"{prefix}.events"].result(30)
        time.sleep(1.0)  # the broker's first seconds are its own
        url = f"kafka://{bootstrap}?prefix={prefix}"
        command = [sys.executable, __file__, "--child", url, "--kind", args.kind, "--events",
                   str(args.events // args.processes), "--cap", str(args.cap)]  # fmt: skip
        if args.durable:
            command += ["--spool", str(Path(place) / "spool")]
        children = [
            subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(args.processes)
        ]
        shares = [json.loads(child.communicate(timeout=600)[0]) for child in children]
        found, twice, mib = consumed(bootstrap, f"{prefix}.events")
    events = sum(s["delivered"] for s in shares) + sum(sum(s["dropped"].values()) for s in shares)
    times = sorted(t for s in shares for t in s["times"])
    warm = sum(s["warm"] for s in shares)
    return {
        "kind": args.kind,
        "processes": args.processes,
        "durable": args.durable,
        "events": events,
        "delivered_per_s": sum(s["delivered"] for s in shares) / max(s["took_s"] for s in shares),
        "lost": events + warm - found,
        "twice": twice,
        "cpu_s_per_million": sum(s["cpu_s"] for s in shares) / events * 1e6,
        **{
            f"{whose}_cpu_s_per_million": sum(s[f"{whose}_cpu_s"] for s in shares) / events * 1e6
            for whose in ("caller", "shipper", "transport")
        },
        "queue_mib": max(s["queue_mib"] for s in shares),
        "rss_growth_mib": max(s["rss_growth_mib"] for s in shares),
        **{f"call_p{name}_us": times[int(len(times) * share)] / 1000 for name, share in SHARES},
        "call_most_us": times[-1] / 1000,
        "calls_over_1_ms": len(times) - bisect_right(times, 1_000_000),
        "calls_over_10_ms": len(times) - bisect_right(times, 10_000_000),
        "gc_pauses": sum(s["gc_pauses"] for s in shares),
        "gc_ms": sum(s["gc_ms"] for s in shares),
        "gc_most_us": max(s["gc_most_us"] for s in shares),
        "preempted": sum(s["preempted"] for s in shares),
        "bytes_per_event": mib * 2**20 / found,
        "load": os.getloadavg()[0],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kafka", help="host:port of a running Kafka; else one is started")
    parser.add_argument("--kind", choices=KINDS, default="call")
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--cap", type=int, default=64 * 2**20, help="max_queue_bytes")
    parser.add_argument("--durable", action="store_true", help="through the spool")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--spool", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(produce(args.child, args.kind, args.events, args.cap, args.spool)))
        return
    figures = run(args)
    for name, value in figures.items():
        shown = value if isinstance(value, str) else f"{value:,.2f}"
        print(f"{name:28} {shown}")
    targets = [
        {
            "what": what,
            "value": figures[name],
            "target": target,
            "holds": figures[name] >= target if more else figures[name] <= target,
        }
        for name, target, more, what in TARGETS
    ]
    for one in targets:
        print(f"{'ok  ' if one['holds'] else 'MISS'} {one['what']}: {one['value']:,.2f}")
    if args.json:
        print(
            json.dumps(
                {
                    "name": "saturated",
                    "machine": f"{platform.machine()}, {os.cpu_count()} cores",
                    "figures": figures,
                    "targets": targets,
                }
            )
        )


if __name__ == "__main__":
    main()
