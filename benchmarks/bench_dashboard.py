"""The dashboard's pages on 10 million calls in chDB: server time p50 and p95, and what they weigh.

    python benchmarks/bench_dashboard.py [--calls N] [--runs N] [--keep DIR] [--seed N] [--json]

The calls are those of ``bench_queries.py``: 30 days, 32 log partitions, 64 unmerged parts in every
table. The server runs in this process with its clock at the end of the data, a millisecond later
with each look at it, and keeps no answer: each request asks the store anew, and what ends now is
not the same question twice (the engine remembers which rows a condition has met). Time is that of a
request over loopback, from its first byte to the last byte of the answer, one at a time; CPU is
that of the whole process (server, engine and client), which other work on the machine disturbs
less. A panel is a part of the overview that comes after the page.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import http.client
import json
import os
import platform
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web
from bench_queries import END, Counting, fill

from callmeter_sinks.clickhouse.chdb_store import ChdbStore
from callmeter_sinks.clickhouse.migrate import migrate
from callmeter_sinks.dashboard import dashboard_routes, serve
from callmeter_sinks.dashboard.rendering import assets
from callmeter_sinks.queries import Queries

TARGET_MS = 150.0
UNMERGED = 2
_TICK = timedelta(milliseconds=1)


def pages(store: ChdbStore) -> dict[str, str]:
    """Name to path; the last one starts a verify beside it, so it stands last."""
    trace = Queries(store).calls(limit=1)[0].trace_id
    return {
        "overview, 24 hours": "/",
        "overview, 6 hours": "/?range=6h",
        "overview, 7 days": "/?range=7d",
        "overview, 30 days": "/?range=30d",
        "overview, 24 hours, one project": "/?project=shop",
        "panel: durations, 24 hours": "/panels/durations",
        "panel: durations, 30 days": "/panels/durations?range=30d",
        "panel: top services, 24 hours": "/panels/services",
        "panel: top users, 24 hours": "/panels/users",
        "panel: top users, 30 days": "/panels/users?range=30d",
        "panel: error classes, 24 hours": "/panels/errors",
        "panel: error classes, 30 days": "/panels/errors?range=30d",
        "budgets": "/budgets",
        "calls, 24 hours": "/calls",
        "calls, one project": "/calls?project=shop",
        "trace": f"/trace/{trace}",
        "experiments": "/experiments",
        "data health": "/data-health",
    }


@contextmanager
def served(store: Any) -> Iterator[str]:
    """The dashboard on a free port, in a thread."""
    app = web.Application()
    looks = count()
    dashboard_routes(store, now=lambda: END + next(looks) * _TICK, keep_s=0.0)(app)
    loop, stop = asyncio.new_event_loop(), asyncio.Event()
    started = threading.Event()
    urls: list[str] = []

    def run() -> None:
        def on_started(url: str) -> None:
            urls.append(url)
            started.set()

        loop.run_until_complete(serve(app, "127.0.0.1", 0, stop=stop, on_started=on_started))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    if not started.wait(30):
        raise SystemExit("the server did not start")
    try:
        yield urls[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(30)


def measured(url: str, path: str, runs: int, counting: Counting) -> dict[str, Any]:
    """One page: once to warm the engine's caches, then timed."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=120)
    counting.statements = 0
    body = fetch(connection, path)
    statements = counting.statements
    times = []
    cpu_s = time.process_time()
    for _ in range(runs):
        began = time.perf_counter()
        fetch(connection, path)
        times.append((time.perf_counter() - began) * 1000)
    cpu_s = time.process_time() - cpu_s
    connection.close()
    times.sort()
    return {
        "p50_ms": round(statistics.median(times), 1),
        "p95_ms": round(times[max(-(-95 * len(times) // 100) - 1, 0)], 1),
        "cpu_ms": round(cpu_s * 1000 / runs, 1),
        "statements": statements,
        "kb": round(len(body) / 1024, 1),
        "kb_gzip": round(len(gzip.compress(body)) / 1024, 1),
    }


def fetch(connection: http.client.HTTPConnection, path: str) -> bytes:
    connection.request("GET", path)
    answer = connection.getresponse()
    body = answer.read()
    if answer.status != 200:
        raise SystemExit(f"{path}: {answer.status}")
    return body


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--calls", type=int, default=10_000_000)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="keep the store here, and use it again")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    with ExitStack() as stack:
        if args.keep is None:
            path = Path(tempfile.mkdtemp(prefix="callmeter-bench-"))
            stack.callback(shutil.rmtree, path, ignore_errors=True)
        else:
            path = args.keep / str(args.calls)
        fresh = not path.exists() or not any(path.iterdir())
        store = ChdbStore(path)
        stack.callback(store.close)
        migrate(store)
        if fresh:
            fill(store, args.calls, args.seed, UNMERGED)
        store.command("SYSTEM STOP MERGES")
        counting = Counting(store)
        url = stack.enter_context(served(counting))
        figures = {
            name: measured(url, page, args.runs, counting) for name, page in pages(store).items()
        }
    static = {
        "static_kb": round(sum(len(a.body) for a in assets().values()) / 1024, 1),
        "static_kb_gzip": round(sum(len(a.packed) for a in assets().values()) / 1024, 1),
    }
    slowest = max(each["p95_ms"] for each in figures.values())
    print(f"\n{args.calls:,} calls; static files {static['static_kb']} kB, "
          f"{static['static_kb_gzip']} kB compressed, once")  # fmt: skip
    for name, each in figures.items():
        print(
            f"  {name:34} p50 {each['p50_ms']:7.1f} ms  p95 {each['p95_ms']:7.1f} ms  "
            f"CPU {each['cpu_ms']:6.1f} ms  "
            f"{each['statements']:2} statements  {each['kb']:7} kB  {each['kb_gzip']:6} kB gzip"
        )
    print(f"  slowest: {slowest} ms p95, target {TARGET_MS:.0f} ms")
    if args.json:
        machine = (
            f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
        )
        target = {"what": f"slowest page, {args.calls:,} calls, p95 ms", "value": slowest,
                  "target": TARGET_MS, "holds": slowest <= TARGET_MS}  # fmt: skip
        said = {"name": "dashboard", "machine": machine, "targets": [target],
                "figures": {"calls": args.calls, **static, "pages": figures}}  # fmt: skip
        print(json.dumps(said))


if __name__ == "__main__":
    main()
