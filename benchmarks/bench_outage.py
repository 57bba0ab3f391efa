"""What a call costs while the backend is away, and what becomes of the events.

    python benchmarks/bench_outage.py                              # broker and collector
    python benchmarks/bench_outage.py --backend collector --seconds 20 --rate 10000
    python benchmarks/bench_outage.py --json                       # ends with one line of JSON

A program makes calls at a steady rate and times each one, in a process of its own. Its backend (a
real Kafka, or a real collector over a SQLite log) is well, killed, back, stopped so that it hangs,
and back again. Afterwards everything is read where it was delivered. ``memory``: no spool, and a
cap so small that events must be dropped; ``durable``: through the spool, nothing may be lost.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from array import array
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

import orjson
from bench_saturated import call

import callmeter
from callmeter.schema.envelope import decode_header, split_lines
from callmeter.sdk import api

now = time.perf_counter_ns
BURST = 20
LOOK_EVERY_S = 0.05
PHASES = ("well", "killed", "back", "hung", "end")
AWAY = ("killed", "hung")
CAPS = {"memory": 4 * 2**20, "durable": 16 * 2**20}


# -- the program ----------------------------------------------------------------------------------


def produce(url: str, mode: str, spool: str, rate: float) -> dict[str, Any]:
    """Make calls until told ``end``; every line of stdin names the phase that begins."""
    durable = {"spool_dir": spool, "durable": True} if mode == "durable" else {}
    client = api.use(
        callmeter.Client(
            callmeter.Settings(
                url=url, max_queue_bytes=CAPS[mode], heartbeat_s=0.0, timeout_s=3.0, **durable
            )
        )
    )
    phase = "well"

    def listen() -> None:
        nonlocal phase
        for line in sys.stdin:
            phase = line.strip()

    for number in range(1_000):  # connected and warm
        call(number)
    client.flush(30.0)
    made, most_bytes, raised = 1_000, 0, 0
    times = {name: array("q") for name in PHASES}
    memory = dict.fromkeys(PHASES, 0)
    threading.Thread(target=listen, daemon=True).start()
    print("ready", flush=True)
    rss_before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    due_s = look_s = time.monotonic()
    while (during := phase) != "end":
        kept = times[during]
        for _ in range(BURST):
            at = now()
            try:
                call(made)
            except Exception:  # noqa: BLE001  # what must never happen is counted
                raised += 1
            kept.append(now() - at)
            made += 1
        if (here_s := time.monotonic()) >= look_s:
            look_s = here_s + LOOK_EVERY_S
            memory[during] = max(memory[during], client.stats().bytes)
        due_s += BURST / rate
        time.sleep(max(0.0, due_s - time.monotonic()))
    most_bytes = max(memory.values())
    result = client.flush(120.0)
    return {
        "made": made,
        "raised": raised,
        "accepted": result.accepted,
        "delivered": result.delivered,
        "dropped": dict(result.dropped),
        "pending": result.pending,
        "most_bytes": most_bytes,
        "rss_growth_mib": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - rss_before) / 1024,
        "times": {name: _told(sorted(kept)) for name, kept in times.items() if kept},
    }


def _told(times: list[int]) -> dict[str, float]:
    def at(share: float) -> float:
        return times[min(len(times) - 1, int(len(times) * share))] / 1000

    return {
        "calls": len(times), "p50_us": at(0.5), "p99_us": at(0.99), "p999_us": at(0.999),
        "most_us": times[-1] / 1000,
    }  # fmt: skip


# -- its backends ---------------------------------------------------------------------------------


class Backend(Protocol):
    """``values`` are the envelopes that it took."""

    url: str

    def kill(self) -> None: ...

    def restart(self) -> None: ...

    def pause(self) -> None: ...

    def resume(self) -> None: ...

    def values(self) -> Iterator[bytes]: ...

    def stop(self) -> None: ...


class Broker:
    """A Kafka of its own."""

    def __init__(self, place: Path) -> None:
        from confluent_kafka.admin import AdminClient, NewTopic

        from callmeter.log.kafka_server import KafkaServer

        self._server = KafkaServer(place / "kafka")
        self._server.start()
        prefix = f"bench{uuid4().hex[:8]}"
        self._topic = f"{prefix}.events"
        admin = AdminClient({"bootstrap.servers": self._server.bootstrap})
        topic = NewTopic(self._topic, num_partitions=4, replication_factor=1)
        admin.create_topics([topic])[self._topic].result(30)
        self.url = f"{self._server.url}?prefix={prefix}"
        self.kill, self.restart = self._server.kill, self._server.restart
        self.pause, self.resume = self._server.pause, self._server.resume
        self.stop = self._server.stop

    def values(self) -> Iterator[bytes]:
        from confluent_kafka import Consumer, TopicPartition

        reader = Consumer(
            {"bootstrap.servers": self._server.bootstrap, "group.id": uuid4().hex,
             "enable.auto.commit": False}
        )  # fmt: skip
        for partition in range(4):
            place = TopicPartition(self._topic, partition, 0)
            _, end = reader.get_watermark_offsets(place, timeout=30)
            reader.assign([place])
            at = 0
            while at < end:
                message = reader.poll(30)
                if message is None or message.error():
                    raise SystemExit(f"cannot read {self._topic}: {message}")
                at = message.offset() + 1
                yield message.value()
        reader.close()


class Collector:
    """A collector over a SQLite log, in a process of its own."""

    def __init__(self, place: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = free.getsockname()[1]
        self._log = place / "log.db"
        self.url = f"http://127.0.0.1:{self._port}"
        self.restart()

    def restart(self) -> None:
        command = [sys.executable, __file__, "--serve", str(self._port), str(self._log)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        if not self._process.stdout.readline():
            raise SystemExit("the collector did not start")

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    stop = kill

    def pause(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def values(self) -> Iterator[bytes]:
        from callmeter.log.sqlite_log import SqliteLog

        with SqliteLog(self._log) as log:
            for partition in range(log.partitions):
                at = 0
                while records := log.read("events", partition, at, max_records=1_000):
                    at = records[-1].offset + 1
                    yield from (record.value or b"" for record in records)


def serve(port: int, path: str) -> None:
    """The collector's process."""
    from callmeter.collector.app import run_collector
    from callmeter.collector.config import CollectorConfig
    from callmeter.log.sqlite_appender import SqliteAppender
    from callmeter.log.sqlite_log import SqliteLog

    with SqliteLog(Path(path)) as log:
        config = CollectorConfig(host="127.0.0.1", port=port)
        told = lambda url: print(url, flush=True)  # noqa: E731  # one word to the parent
        asyncio.run(run_collector(SqliteAppender(log), config, on_started=told))


BACKENDS = {"broker": Broker, "collector": Collector}


# -- one run --------------------------------------------------------------------------------------


def run(name: str, mode: str, rate: float, seconds: float) -> dict[str, Any]:
    with ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        backend: Backend = BACKENDS[name](place)
        stack.callback(backend.stop)
        command = [sys.executable, __file__, "--child", backend.url, mode, str(place / "spool"),
                   str(rate)]  # fmt: skip
        child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            text=True,
        )  # fmt: skip
        stack.callback(child.kill)
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdout.readline()

        def tell(phase: str) -> None:
            print(phase, file=child.stdin, flush=True)

        time.sleep(2.0)
        backend.kill()
        tell("killed")
        time.sleep(seconds)
        tell("back")  # its first seconds are no outage any more, and no calm either
        backend.restart()
        time.sleep(2.0)
        backend.pause()
        tell("hung")
        time.sleep(seconds)
        tell("back")
        backend.resume()
        time.sleep(1.0)
        told: dict[str, Any] = json.loads(child.communicate("end\n", timeout=300)[0])
        ids: Counter[str] = Counter()
        seen: set[tuple[str, int]] = set()
        for value in backend.values():
            head, *lines = split_lines(value)
            header = decode_header(head)
            if (header.source, header.seq) not in seen:  # else sent again: counts once
                seen.add((header.source, header.seq))
                events = map(orjson.loads, lines)
                ids.update(e["call_id"] for e in events if e["kind"] == "call_end")
    dropped = sum(told["dropped"].values())
    return {
        **told,
        "cap": CAPS[mode],
        "bytes_of_cap": told["most_bytes"] / CAPS[mode],
        "unaccounted": told["made"] - told["delivered"] - dropped - told["pending"],
        "found": len(ids),
        # Neither at the consumer nor said to be dropped; more than once at the consumer.
        "lost": max(0, told["made"] - len(ids) - dropped) + max(0, told["delivered"] - len(ids)),
        "twice": sum(times - 1 for times in ids.values()),
        "load": os.getloadavg()[0],
    }


def targets_of(what: str, figures: dict[str, Any]) -> list[dict[str, Any]]:
    rows: list[tuple[str, float, float]] = [
        (f"p99.9 of a call while it is {phase}, ms", figures["times"][phase]["p999_us"] / 1000, 5.0)
        for phase in AWAY
    ]
    rows += [
        ("exceptions in the caller", figures["raised"], 0),
        ("most memory, of its cap", figures["bytes_of_cap"], 1.0),
        ("accepted and not delivered, dropped or pending", abs(figures["unaccounted"]), 0),
        ("lost without a word", figures["lost"], 0),
        ("twice behind the log", figures["twice"], 0),
    ]
    return [
        {"what": f"{what}: {text}", "value": value, "target": most, "holds": value <= most}
        for text, value, most in rows
    ]


def show(what: str, figures: dict[str, Any]) -> None:
    print(f"== {what} (load {figures['load']:.1f})")
    for phase, told in figures["times"].items():
        print(
            f"  {phase:7} {told['calls']:>8,} calls   p50 {told['p50_us']:8.2f} µs   "
            f"p99 {told['p99_us']:9.2f}   p99.9 {told['p999_us']:10.2f}   "
            f"most {told['most_us']:10.2f}"
        )
    print(
        f"  made {figures['made']:,} = delivered {figures['delivered']:,} + dropped "
        f"{sum(figures['dropped'].values()):,} + pending {figures['pending']:,}; "
        f"found {figures['found']:,}"
    )
    print(
        f"  memory {figures['most_bytes'] / 2**20:.2f} of {figures['cap'] / 2**20:.0f} MiB, "
        f"process grew by {figures['rss_growth_mib']:.1f} MiB"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--backend", choices=BACKENDS, help="one of them; else both")
    parser.add_argument("--mode", choices=CAPS, help="one of them; else both")
    parser.add_argument("--rate", type=float, default=5_000, help="calls a second")
    parser.add_argument("--seconds", type=float, default=8.0, help="how long it is away, each time")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    parser.add_argument("--serve", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        url, mode, spool, rate = args.child
        print(json.dumps(produce(url, mode, spool, float(rate))))
        return
    if args.serve:
        serve(int(args.serve[0]), args.serve[1])
        return
    figures: dict[str, Any] = {}
    targets: list[dict[str, Any]] = []
    for backend in [args.backend] if args.backend else BACKENDS:
        for mode in [args.mode] if args.mode else CAPS:
            what = f"{backend}, {mode}"
            figures[what] = run(backend, mode, args.rate, args.seconds)
            show(what, figures[what])
            targets += targets_of(what, figures[what])
    for one in targets:
        print(f"{'ok  ' if one['holds'] else 'MISS'} {one['what']}: {one['value']:,.2f}")
    if args.json:
        machine = f"{platform.machine()}, {os.cpu_count()} cores"
        line = {"name": "outage", "machine": machine, "figures": figures, "targets": targets}
        print(json.dumps(line))


if __name__ == "__main__":
    main()
