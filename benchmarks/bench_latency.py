"""From an event handed to the SDK to the budget status that includes it, read in another process.

    python benchmarks/bench_latency.py                 # embedded, then over a Kafka of its own
    python benchmarks/bench_latency.py --over kafka --rates 1,1000,20000 --seconds 15 [--json]

A whole pipeline in processes of its own (``callmeter up``; or a broker, ``callmeter worker`` and
``callmeter worker --watch``), a producer in another that sends so many calls a second, and this
process, which follows the status as a guard does. Some of the calls are probes of 1 pico-USD each,
which a budget of their own counts: when its spend reads n, the first n probes are in. At most 20
probes a second, spread over the run.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from http.client import HTTPException
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.request import urlopen

import callmeter
from callmeter.embedded import running
from callmeter.errors import CallmeterError
from callmeter.schema.budgets import Budget
from callmeter.schema.status import BudgetStatus
from callmeter.sdk.budget.feed import Feed
from callmeter.sdk.budget.http_feed import HttpFeed
from callmeter.sdk.budget.kafka_feed import KafkaFeed

TARGET_S = 1.0
PROBES_PER_S = 20
COMMAND = [sys.executable, "-m", "callmeter"]
PARTITIONS = 4
_PATIENCE_S = 90.0


class Pipeline:
    """Where to send, how to set a budget, and how to follow its status."""

    def __init__(self, url: str, budgets: list[str], feed: Callable[[], Feed]) -> None:
        self.url = url
        self.budgets = budgets
        self.feed = feed


class Probes:
    """What a guard's feed tells, and when."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.loaded = threading.Event()
        #: (probes included, seconds since the epoch)
        self.seen: list[tuple[int, float]] = []

    def snapshot(self, definition: Budget | None, statuses: Iterable[BudgetStatus]) -> None:
        for status in statuses:
            self.report(status.entity, status)
        if definition is not None:
            self.loaded.set()

    def define(self, definition: Budget | None) -> None:
        if definition is not None:
            self.loaded.set()

    def report(self, entity: str, status: BudgetStatus | None) -> None:
        if status is not None and status.budget == self.name:
            self.seen.append((int(status.spend_pico), time.time()))

    def heard(self) -> None:
        """A sign of life."""


def produce(url: str, rate: int, seconds: float) -> None:
    """The producer: prints the times of its probes as JSON. Each rate has a user of its own."""
    prober = f"probe-{rate}"
    client = callmeter.init(url, project="bench")
    probe_every = max(1, rate // PROBES_PER_S)
    probes: list[float] = []
    begun_s = time.time()
    total = int(rate * seconds)
    for n in range(total):
        # In steps of a millisecond and more: what is due is sent, then the rest of it is slept.
        due_s = begun_s + n / rate
        wait_s = due_s - time.time()
        if wait_s > 0.001:
            time.sleep(wait_s)
        probe = n % probe_every == 0
        with callmeter.generation(model="m", provider="p", user=prober if probe else "u") as call:
            call.usage(input=100, output=20)
            call.cost("0.000000000001" if probe else "0.0001")
        if probe:
            probes.append(time.time())
    took_s = time.time() - begun_s
    ok = client.flush(60).ok
    print(json.dumps({"probes": probes, "rate": total / took_s, "ok": ok}))


def follow(feed: Feed, probes: Any) -> None:
    """The feed's thread. Stopped amid a read it complains; what it misses shows as no probes."""
    with suppress(OSError, HTTPException, CallmeterError):
        feed.follow(probes)


def measure(pipeline: Pipeline, rate: int, seconds: float) -> dict[str, Any]:
    """Latencies of the probes at one rate."""
    name = f"probe-{rate}"
    subprocess.run(
        [*COMMAND, "budget", "set", name, *pipeline.budgets, "--limit", "1000",
         "--scope", f"user={name}", "-q"],
        check=True,
    )  # fmt: skip
    seen = Probes(name)
    feed = pipeline.feed()
    threading.Thread(target=follow, args=(feed, seen), daemon=True).start()
    assert seen.loaded.wait(_PATIENCE_S), "the budget did not come"
    time.sleep(2)  # the meters have it too
    program = [sys.executable, __file__, "--produce", pipeline.url, str(rate), str(seconds)]
    load = os.getloadavg()[0]
    done = subprocess.run(program, check=True, capture_output=True, text=True)
    produced = json.loads(done.stdout)
    sent = produced["probes"]
    until_s = time.time() + _PATIENCE_S
    while not seen.seen or seen.seen[-1][0] < len(sent):
        assert time.time() < until_s, f"{seen.seen[-1:]} of {len(sent)} probes"
        time.sleep(0.05)
    feed.stop()
    latencies: list[float] = []
    for count, at_s in seen.seen:
        latencies += [at_s - sent_s for sent_s in sent[len(latencies) : count]]
    latencies.sort()
    return {
        "rate": round(produced["rate"]),
        "probes": len(latencies),
        "p50_ms": round(statistics.median(latencies) * 1e3),
        "p99_ms": round(latencies[min(len(latencies) - 1, int(len(latencies) * 0.99))] * 1e3),
        "max_ms": round(latencies[-1] * 1e3),
        "all_delivered": produced["ok"],
        "load_before": round(load, 1),
    }


@contextmanager
def embedded(scratch: Path) -> Iterator[Pipeline]:
    """``callmeter up``."""
    directory = scratch / "data"
    with started("up", "--dir", str(directory), "--port", "0") as up:
        assert up.stdout is not None
        up.stdout.readline()
        owner = running(directory)
        assert owner is not None, "callmeter up did not come up"
        settings = SimpleNamespace(api_key=None, ca_file=None)
        client: Any = SimpleNamespace(url=owner.url, settings=settings)
        yield Pipeline(owner.url, ["--dir", str(directory)], lambda: HttpFeed(client))


@contextmanager
def over_kafka(scratch: Path) -> Iterator[Pipeline]:
    """A broker, a meter and a watch, each in a process of its own."""
    from callmeter.log.kafka_server import KafkaServer

    with ExitStack() as stack:
        url = stack.enter_context(KafkaServer(scratch / "kafka")).url
        subprocess.run(
            [*COMMAND, "topics", "apply", "--kafka", url, "--partitions", str(PARTITIONS), "-q"],
            check=True,
        )
        for kind in ([], ["--watch"]):
            worker = stack.enter_context(started("worker", "--kafka", url, "--metrics", "0", *kind))
            assert worker.stdout is not None
            until_ready(worker.stdout.readline().split()[-1].removesuffix("/metrics"))
        yield Pipeline(url, ["--kafka", url], lambda: KafkaFeed(url, None))


def until_ready(url: str) -> None:
    """Waits until a worker has restored its partitions."""
    until_s = time.time() + _PATIENCE_S
    while True:
        try:
            with urlopen(f"{url}/readyz", timeout=5):
                return
        except OSError:
            assert time.time() < until_s, f"{url} did not become ready"
            time.sleep(0.2)


@contextmanager
def started(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A command that ends with the benchmark."""
    process = subprocess.Popen([*COMMAND, *arguments], stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(120)


PIPELINES = {"embedded": embedded, "kafka": over_kafka}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--over", choices=[*PIPELINES, "both"], default="both")
    parser.add_argument("--rates", default="1,1000,20000")
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--produce", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.produce:
        url, rate, seconds = options.produce
        produce(url, int(rate), float(seconds))
        return
    rows = {}
    for over in PIPELINES if options.over == "both" else [options.over]:
        with tempfile.TemporaryDirectory() as scratch, PIPELINES[over](Path(scratch)) as pipeline:
            for rate in map(int, options.rates.split(",")):
                rows[over, rate] = found = measure(pipeline, rate, options.seconds)
                print(f"{over:>9} {rate:>7} events/s: {found}", flush=True)
    if options.json:
        report(rows)


def report(rows: dict[tuple[str, int], dict[str, Any]]) -> None:
    """One line for programs."""
    machine = f"{platform.machine()} {platform.python_implementation()} {platform.python_version()}"
    targets = [
        {
            "what": f"{over}, p99 at {rate} events/s, ms",
            "value": found["p99_ms"],
            "target": TARGET_S * 1e3,
            "holds": found["p99_ms"] <= TARGET_S * 1e3,
        }
        for (over, rate), found in rows.items()
    ]
    figures = {f"{over} {rate}": found for (over, rate), found in rows.items()}
    print(
        json.dumps({"name": "latency", "machine": machine, "figures": figures, "targets": targets})
    )


if __name__ == "__main__":
    main()
