"""What a traced call costs its caller, with shipping on, beside its peers and a deque's append.

    python benchmarks/bench_sdk.py                 # for people
    python benchmarks/bench_sdk.py --json          # ends with one line of JSON
    python benchmarks/bench_sdk.py --url kafka://localhost:9092 --events 1000000

Every figure is above the same function without instrumentation, in microseconds. Medians come from
bursts (400 calls, then a flush, so that the figure is the caller's and not the exporter's); p99 and
p99.9 from single calls under a steady load, the clock's own cost taken off. Floor and peers run in
the same process, in turns. Langfuse gets an environment of its own (``--langfuse``), or is skipped.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import callmeter
from callmeter.sdk import api
from callmeter.sdk.hot import compiled

BURST = 400
ROUNDS = 60
SINGLES = 20_000
ANSWER = "The capital of France is Paris."
now = time.perf_counter_ns

Sync = Callable[[str], Any]
Async = Callable[[str], Awaitable[Any]]


def bare(_: str) -> str:
    return ANSWER


async def abare(_: str) -> str:
    return ANSWER


def traced(_: str) -> str:
    with callmeter.generation(
        "answer",
        model="gpt-4o-mini",
        provider="openai",
        temperature=0.7,
        max_tokens=512,
        user="user-1234",
        session="session-9f8e7d6c",
        route="answer",
        region="eu",
    ) as call:
        call.usage(input=512, output=128)
        call.set(finish_reason="stop", response_model="gpt-4o-mini-2024-07-18")
        return ANSWER


async def atraced(_: str) -> str:
    async with callmeter.generation(
        "answer",
        model="gpt-4o-mini",
        provider="openai",
        temperature=0.7,
        max_tokens=512,
        user="user-1234",
        session="session-9f8e7d6c",
        route="answer",
        region="eu",
    ) as call:
        call.usage(input=512, output=128)
        call.set(finish_reason="stop", response_model="gpt-4o-mini-2024-07-18")
        return ANSWER


@callmeter.track
def tracked(_: str) -> str:
    return ANSWER


def metric(_: str) -> None:
    callmeter.metric("loss", 0.5, step=1)


ATTRIBUTES = {
    "gen_ai.request.model": "gpt-4o-mini",
    "gen_ai.provider.name": "openai",
    "gen_ai.request.temperature": 0.7,
    "gen_ai.request.max_tokens": 512,
    "user": "user-1234",
    "session": "session-9f8e7d6c",
    "route": "answer",
    "region": "eu",
    "gen_ai.usage.input_tokens": 512,
    "gen_ai.usage.output_tokens": 128,
    "gen_ai.response.finish_reasons": "stop",
    "gen_ai.response.model": "gpt-4o-mini-2024-07-18",
}


def floor() -> Sync:
    """A tuple appended to a bounded deque that is full: what no Python tracer can be below."""
    append = deque(maxlen=100_000).append  # type: ignore[var-annotated]

    def call(mark: str) -> None:
        append((mark, 1, 2.0, "gpt-4o-mini", 512, 128))

    for _ in range(100_000):  # full: each append also frees the oldest, as a steady state does
        call("m")
    return call


def opentelemetry() -> tuple[Sync, Callable[[], Any]] | str:
    try:
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import (
            BatchSpanProcessor,
            SpanExporter,
            SpanExportResult,
        )
    except ImportError:
        return "opentelemetry-sdk is not installed"

    class Nowhere(SpanExporter):
        def export(self, spans: Any) -> SpanExportResult:
            return SpanExportResult.SUCCESS

    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(Nowhere()))
    tracer = provider.get_tracer("bench")

    def call(_: str) -> str:
        with tracer.start_as_current_span("answer") as span:
            span.set_attributes(ATTRIBUTES)
            return ANSWER

    return call, provider.force_flush


def prometheus() -> tuple[Sync, Callable[[], Any]] | str:
    try:
        from prometheus_client import CollectorRegistry, Counter, Histogram
    except ImportError:
        return "prometheus-client is not installed"
    registry = CollectorRegistry()
    tokens = Counter("tokens", "Tokens", ["model", "provider", "unit"], registry=registry)
    latency = Histogram("latency", "Latency", ["model", "provider"], registry=registry)

    def call(_: str) -> str:
        begun = time.perf_counter()
        tokens.labels("gpt-4o-mini", "openai", "input").inc(512)
        tokens.labels("gpt-4o-mini", "openai", "output").inc(128)
        latency.labels("gpt-4o-mini", "openai").observe(time.perf_counter() - begun)
        return ANSWER

    return call, lambda: None


_LANGFUSE = """
import time, statistics, json, logging
logging.disable(logging.CRITICAL)
from langfuse import Langfuse
client = Langfuse(public_key="pk", secret_key="sk", host="http://127.0.0.1:9", timeout=1)
def call():
    with client.start_as_current_observation(
        as_type="generation", name="answer", model="gpt-4o-mini",
        model_parameters={"temperature": 0.7, "max_tokens": 512},
        metadata={"user": "user-1234", "session": "s", "route": "answer", "region": "eu"},
    ) as generation:
        generation.update(usage_details={"input": 512, "output": 128},
                          metadata={"finish_reason": "stop", "response_model": "m"})
times = []
for _ in range(200):
    t = time.perf_counter_ns(); call(); times.append((time.perf_counter_ns() - t) / 1000)
print(json.dumps(statistics.median(times[50:])), flush=True)
import os; os._exit(0)
"""


def langfuse() -> float | str:
    """Langfuse in an environment of its own; a word why not."""
    with tempfile.TemporaryDirectory() as directory:
        python = Path(directory) / "bin" / "python"
        try:
            _quietly("uv", "venv", "-q", directory)
            _quietly("uv", "pip", "install", "-q", "--python", str(python), "langfuse>=3")
            return float(_quietly(str(python), "-c", _LANGFUSE).splitlines()[-1])
        except (OSError, ValueError, IndexError, subprocess.SubprocessError) as exc:
            return f"could not be tried: {type(exc).__name__}"


def _quietly(*command: str) -> str:
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
    return done.stdout


def burst(fn: Sync) -> float:
    begun = now()
    for mark in itertools.repeat("m", BURST):
        fn(mark)
    return (now() - begun) / BURST / 1000


async def aburst(fn: Async) -> float:
    begun = now()
    for mark in itertools.repeat("m", BURST):
        await fn(mark)
    return (now() - begun) / BURST / 1000


def medians(client: callmeter.Client, peers: dict[str, tuple[Sync, Callable[[], Any]]]) -> dict:
    """Medians of bursts, all in turns, so that a noisy moment is everyone's."""
    flush = client.flush
    syncs: dict[str, tuple[Sync, Callable[[], Any]]] = {
        "bare": (bare, flush),
        "floor": (floor(), flush),
        "generation sync": (traced, flush),
        "track": (tracked, flush),
        "metric": (metric, flush),
        **peers,
    }
    asyncs: dict[str, Async] = {"bare async": abare, "generation async": atraced}
    seen: dict[str, list[float]] = {name: [] for name in (*syncs, *asyncs)}
    for number in range(ROUNDS + 5):
        for name, (fn, settle) in syncs.items():
            took = burst(fn)
            settle()
            if number >= 5:
                seen[name].append(took)
        for name, afn in asyncs.items():
            took = asyncio.run(aburst(afn))
            flush()
            if number >= 5:
                seen[name].append(took)
    return {name: statistics.median(times) for name, times in seen.items()}


def singles(fn: Sync, settle: Callable[[], Any]) -> tuple[float, float]:
    """p99 and p99.9 of single calls, at some 20,000 calls a second, the clock's cost taken off."""
    fn("m")
    clock = statistics.median(-(now() - now()) for _ in range(1000))
    times = []
    for number in range(SINGLES):
        begun = now()
        fn("m")
        times.append(now() - begun - clock)
        if number % 100 == 99:
            time.sleep(0.005)
    settle()
    times.sort()
    return times[int(SINGLES * 0.99)] / 1000, times[int(SINGLES * 0.999)] / 1000


def saturate(client: callmeter.Client, events: int) -> dict[str, float]:
    """As many calls as one thread can make; what arrived, and what it cost in all threads."""
    before = client.stats()
    cpu, begun = time.process_time(), now()
    for mark in itertools.repeat("m", events):
        traced(mark)
    emitted_s = (now() - begun) / 1e9
    client.flush(120.0)
    took_s, cpu_s = (now() - begun) / 1e9, time.process_time() - cpu
    after = client.stats()
    delivered = after.delivered - before.delivered
    return {
        "events": events,
        "delivered": delivered,
        "dropped": sum(after.dropped.values()) - sum(before.dropped.values()),
        "emitted_per_s": events / emitted_s,
        "delivered_per_s": delivered / took_s,
        "cpu_s_per_million": cpu_s / events * 1e6,
    }


def import_ms(program: str) -> float:
    """A program's imports above bare Python, the best of several."""

    def best(code: str) -> float:
        times = []
        for _ in range(7):
            begun = now()
            subprocess.run([sys.executable, "-c", code], check=True)
            times.append((now() - begun) / 1e6)
        return min(times)

    return best(program) - best("pass")


def run(url: str, events: int, *, with_langfuse: bool) -> dict[str, Any]:
    client = api.use(callmeter.Client(callmeter.Settings(url=url, max_queue_bytes=512 * 2**20)))
    peers, skipped = {}, {}
    for name, made in (("opentelemetry-sdk", opentelemetry()), ("prometheus", prometheus())):
        if isinstance(made, str):
            skipped[name] = made
        else:
            peers[name] = made
    times = medians(client, peers)
    floor_us = times["floor"]
    figures: dict[str, Any] = {
        "hot_path": "compiled" if compiled() else "in Python",
        "bare_us": times["bare"],
        "floor_us": floor_us,
        "load": os.getloadavg()[0],
    }
    for name in ("generation sync", "generation async", "track", "metric", *peers):
        base = times["bare async" if name.endswith("async") else "bare"]
        key = name.replace(" ", "_")
        figures[f"{key}_us"] = times[name] - base
        figures[f"{key}_per_floor"] = (times[name] - base) / floor_us
    figures["generation_p99_us"], figures["generation_p999_us"] = singles(traced, client.flush)
    for name, (fn, settle) in peers.items():
        figures[f"{name}_p99_us"], figures[f"{name}_p999_us"] = singles(fn, settle)
    for name, value in saturate(client, events).items():
        figures[f"saturated_{name}"] = value
    figures["import_ms"] = import_ms("import callmeter")
    figures["import_and_init_ms"] = import_ms("import callmeter; callmeter.init('noop:')")
    found = langfuse() if with_langfuse else "not asked for (--langfuse)"
    if isinstance(found, str):
        skipped["langfuse"] = found
    else:
        figures["langfuse_us"] = found
    figures["skipped"] = skipped
    client.close()
    return figures


TARGETS = (
    ("generation_sync_us", 2.5, "a traced generation with 12 attributes, sync, µs"),
    ("generation_async_us", 2.5, "a traced generation with 12 attributes, async, µs"),
    ("generation_sync_per_floor", 15.0, "sync, in appends of a tuple to a deque"),
    ("generation_async_per_floor", 15.0, "async, in appends of a tuple to a deque"),
    ("metric_us", 1.0, "a metric, µs"),
    ("saturated_cpu_s_per_million", 8.0, "CPU seconds per million calls, all threads"),
    ("import_ms", 50.0, "import above bare Python, ms"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--url", default="noop:", help="where to ship to while measuring")
    parser.add_argument("--events", type=int, default=200_000, help="for the saturated run")
    parser.add_argument("--langfuse", action="store_true", help="install and measure it too")
    args = parser.parse_args()
    figures = run(args.url, args.events, with_langfuse=args.langfuse)
    targets = [
        {"what": what, "value": figures[key], "target": most, "holds": figures[key] <= most}
        for key, most, what in TARGETS
    ]
    for key, value in figures.items():
        shown = f"{value:,.3f}" if isinstance(value, float) else value
        print(f"{key:32} {shown}")
    print()
    for target in targets:
        mark = "holds" if target["holds"] else "MISSED"
        print(f"{mark:7} {target['value']:10.2f} of {target['target']:>5}  {target['what']}")
    if args.json:
        machine = (
            f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
        )
        print(
            json.dumps({"name": "sdk", "machine": machine, "figures": figures, "targets": targets})
        )


if __name__ == "__main__":
    main()
