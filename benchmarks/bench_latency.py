"""From an event handed to the SDK to the budget status that includes it, read in another process.

    python benchmarks/bench_latency.py [--rates 1,1000,20000] [--seconds S] [--json]

A whole pipeline (``callmeter up`` in its own process), a producer in another that sends so many
calls a second, and this process, which follows the status as a guard does. Some of the calls are
probes of 1 pico-USD each, which a budget of their own counts: when its spend reads n, the first n
probes are in. At most 20 probes a second, spread over the run.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import callmeter
from callmeter.embedded import running
from callmeter.schema.budgets import Budget
from callmeter.schema.status import BudgetStatus
from callmeter.sdk.budget_feeds import HttpFeed

TARGET_S = 1.0
PROBES_PER_S = 20
COMMAND = [sys.executable, "-m", "callmeter"]


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
        if status is not None:
            self.seen.append((int(status.spend_pico), time.time()))

    def heard(self) -> None:
        """A sign of life."""


def produce(url: str, rate: int, seconds: float) -> None:
    """The producer: prints the times of its probes as JSON."""
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
        with callmeter.generation(model="m", provider="p", user="probe" if probe else "u") as call:
            call.usage(input=100, output=20)
            call.cost("0.000000000001" if probe else "0.0001")
        if probe:
            probes.append(time.time())
    took_s = time.time() - begun_s
    ok = client.flush(60).ok
    print(json.dumps({"probes": probes, "rate": total / took_s, "ok": ok}))


def measure(url: str, directory: Path, rate: int, seconds: float) -> dict[str, Any]:
    name = f"probe-{rate}"
    subprocess.run(
        [*COMMAND, "budget", "set", name, "--dir", str(directory), "--limit", "1000",
         "--scope", "user=probe", "-q"],
        check=True,
    )  # fmt: skip
    seen = Probes(name)
    settings = SimpleNamespace(api_key=None, ca_file=None)
    feed = HttpFeed(SimpleNamespace(url=url, settings=settings))  # type: ignore[arg-type]
    threading.Thread(target=feed.follow, args=(seen,), daemon=True).start()
    assert seen.loaded.wait(30), "the budget did not come"
    time.sleep(2)  # the meters have it too
    program = [sys.executable, __file__, "--produce", url, str(rate), str(seconds)]
    done = subprocess.run(program, check=True, capture_output=True, text=True)
    produced = json.loads(done.stdout)
    sent = produced["probes"]
    until_s = time.time() + 60
    while not seen.seen or seen.seen[-1][0] < len(sent):
        assert time.time() < until_s, f"{seen.seen[-1:]} of {len(sent)} probes"
        time.sleep(0.05)
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
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
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
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch) / "data"
        up = subprocess.Popen(
            [*COMMAND, "up", "--dir", str(directory), "--port", "0"], stdout=subprocess.PIPE
        )
        try:
            assert up.stdout is not None
            up.stdout.readline()
            owner = running(directory)
            assert owner is not None, "callmeter up did not come up"
            for rate in map(int, options.rates.split(",")):
                rows[rate] = found = measure(owner.url, directory, rate, options.seconds)
                print(f"{rate:>7} events/s: {found}", flush=True)
        finally:
            up.terminate()
            up.wait(120)
    if options.json:
        report(rows)


def report(rows: dict[int, dict[str, Any]]) -> None:
    """One line for programs."""
    machine = f"{platform.machine()} {platform.python_implementation()} {platform.python_version()}"
    targets = [
        {
            "what": f"p99 at {rate} events/s, ms",
            "value": found["p99_ms"],
            "target": TARGET_S * 1e3,
            "holds": found["p99_ms"] <= TARGET_S * 1e3,
        }
        for rate, found in rows.items()
    ]
    figures = {str(rate): found for rate, found in rows.items()}
    print(
        json.dumps({"name": "latency", "machine": machine, "figures": figures, "targets": targets})
    )


if __name__ == "__main__":
    main()
