"""What the meter costs: CPU per event, against ``orjson.loads`` of the same lines in the same run.

    python benchmarks/bench_meter.py [--events N] [--rounds N] [--seed N] [--json]

Everything the meter does is on: judging, sequence check, pricing from the installed book, folding
into minutes and histograms, encoding of metered records, deltas and state rows. Lines are model
calls of about 20 fields. Cases that end in ``_budgets`` have 20 budgets besides, 3 of them per user
over 10,000 users, and so the spend records for the watch. A checkpoint is taken every 500 envelopes
or 50,000 events, whatever comes first: what 250 ms at full speed make. Figures are CPU time of one
thread, the least of several rounds taken in turn: what else runs on the machine only adds. Garbage
is collected as seldom as ``callmeter worker`` has it.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import time
import tracemalloc
import uuid
from collections.abc import Sequence
from typing import Any

import orjson

from callmeter.cli.garbage import collect_seldom
from callmeter.log.record import LogRecord
from callmeter.pricing import Pricer, installed_book
from callmeter.schema.budgets import Budget, next_version
from callmeter.schema.envelope import Header, encode
from callmeter.schema.events import MODEL_OPERATIONS
from callmeter_processors.meter import PartitionMeter

NOW_US = 1_790_000_000_000_000
MODELS = (
    ("openai", "gpt-4o"),
    ("openai", "gpt-4o-mini"),
    ("openai", "gpt-4.1"),
    ("anthropic", "claude-sonnet-4-5"),
    ("google", "gemini-2.5-pro"),
)
CHECKPOINT_ENVELOPES = 500
CHECKPOINT_EVENTS = 50_000


def call_line(rng: random.Random, dims: int) -> bytes:
    """A model call as the SDK writes it, one of ``dims`` combinations of dimensions."""
    provider, model = rng.choice(MODELS)
    started_us = NOW_US - rng.randrange(30_000_000)
    latency_us = int(rng.lognormvariate(13.5, 0.8))
    read = rng.randrange(1000)
    call_id = uuid.UUID(int=rng.getrandbits(128), version=4)
    return orjson.dumps(
        {
            "kind": "call_end",
            "ts_us": started_us + latency_us,
            "call_id": str(call_id),
            "trace_id": f"{rng.getrandbits(128):032x}",
            "started_us": started_us,
            "operation": "chat",
            "status": "error" if rng.random() < 0.02 else "ok",
            "parent_span_id": f"{rng.getrandbits(64):016x}",
            "name": "answer",
            "provider": provider,
            "model": model,
            "response_model": model,
            "phase": f"phase-{rng.randrange(max(1, dims // 10))}",
            "program": "support-bot",
            "user": f"user-{rng.randrange(10_000)}",
            "session": f"session-{rng.randrange(10_000)}",
            "tags": {"team": f"team-{rng.randrange(10)}", "tier": "gold"},
            "attributes": {"temperature": "0.2", "max_tokens": "1024"},
            "finish_reason": "stop",
            "http_status": 200,
            "latency_us": latency_us,
            "ttft_us": latency_us // 4,
            "usage": {
                "input": 1000 + rng.randrange(7000),
                "output": 100 + rng.randrange(900),
                "cache_read": read,
                "reasoning": rng.randrange(100),
            },
        }
    )


def records(lines: Sequence[bytes], size: int, sources: int) -> list[LogRecord]:
    """The lines in envelopes of ``size`` from so many sources in turn."""
    names = [str(uuid.UUID(int=i + 1, version=4)) for i in range(sources)]
    made = []
    for offset in range(len(lines) // size):
        part = lines[offset * size : (offset + 1) * size]
        source = names[offset % sources]
        header = Header(source, offset // sources, size, NOW_US, "shop", "prod", "api", "bench/1")
        made.append(LogRecord("events", 0, offset, NOW_US, source.encode(), encode(header, part)))
    return made


def budgets() -> list[Budget]:
    """20 definitions: 3 per user, 2 on users or tags, the others on dimensions."""

    def made(name: str, **fields: Any) -> Budget:
        return next_version(None, Budget(id=name, limit_pico="5000000000000", **fields), 1)

    found = [
        made(f"user-{window}", per="user", window=window) for window in ("hour", "day", "month")
    ]
    found.append(made("gold", scope={"tag:tier": ["gold"], "provider": ["openai"]}))
    found.append(made("teams", per="tag:team"))
    found += [made(f"model-{model}", scope={"model": [model]}) for _, model in MODELS]
    found += [made("per-model", per="model"), made("per-provider", per="provider")]
    found += [made(f"project-{i}", scope={"project": ["shop"]}, window="hour") for i in range(4)]
    found += [made(f"fleet-{i}", scope={"environment": ["prod"]}) for i in range(4)]
    assert len(found) == 20
    return found


def run_meter(
    pricer: Pricer, recs: Sequence[LogRecord], size: int, definitions: Sequence[Budget] = ()
) -> float:
    """CPU seconds to meter the records, checkpoints included."""
    meter = PartitionMeter("bench", 0, pricer)
    if definitions:
        meter.configure(definitions, 0, 32)
    every = max(1, min(CHECKPOINT_ENVELOPES, CHECKPOINT_EVENTS // size))
    began = time.process_time()
    for i, record in enumerate(recs, 1):
        meter.process(record)
        if i % every == 0:
            meter.checkpoint()
    meter.checkpoint()
    return time.process_time() - began


def run_orjson(lines: Sequence[bytes]) -> float:
    began = time.process_time()
    for line in lines:
        orjson.loads(line)
    return time.process_time() - began


def bytes_per_source(sources: int) -> float:
    """Memory of a source that closed cleanly, counted by tracemalloc."""
    pricer = Pricer(installed_book())
    meter = PartitionMeter("bench", 0, pricer)
    tracemalloc.start()
    for i in range(sources):
        source = str(uuid.UUID(int=i + 1, version=4))
        header = Header(source, 0, 0, NOW_US, "shop", last=True)
        meter.process(LogRecord("events", 0, i, NOW_US, source.encode(), encode(header, ())))
        if i % CHECKPOINT_ENVELOPES == 0:
            meter.checkpoint()
    meter.checkpoint()
    used = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return used / sources


def check(pricer: Pricer, lines: Sequence[bytes], recs: Sequence[LogRecord]) -> None:
    """The input is what it is meant to be: all calls accepted and priced."""
    meter = PartitionMeter("bench", 0, pricer)
    for record in recs:
        meter.process(record)
    outputs = meter.checkpoint().outputs
    head = next(out.value for out in outputs if out.key == b"deltas")
    controls = json.loads(head.split(b"\n", 1)[0])["controls"]
    assert controls["calls"] == len(lines), controls
    assert not controls["unpriced"], controls
    assert json.loads(lines[0])["operation"] in MODEL_OPERATIONS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    pricer = Pricer(installed_book())
    collect_seldom()
    figures: dict[str, float] = {}
    cases = [
        ("size_200_dims_1000", 200, 1000),
        ("size_200_dims_1000_budgets", 200, 1000),
        ("size_10_dims_1000", 10, 1000),
        ("size_1_dims_1000", 1, 1000),
        ("size_200_dims_10000", 200, 10_000),
        ("size_200_dims_100000", 200, 100_000),
    ]
    print(
        f"{'envelopes, dimensions':28}{'µs/event':>10}{'orjson µs':>11}{'ratio':>8}{'events/s':>12}"
    )
    for name, size, dims in cases:
        rng = random.Random(options.seed)
        count = options.events // (10 if size == 1 else 1)
        lines = [call_line(rng, dims) for _ in range(count)]
        recs = records(lines, size, sources=100)
        check(pricer, lines, recs)
        meter_s, orjson_s = [], []
        for _ in range(options.rounds):
            orjson_s.append(run_orjson(lines))
            used = budgets() if name.endswith("_budgets") else ()
            meter_s.append(run_meter(pricer, recs, size, used))
        meter_us, orjson_us = (min(each) / count * 1e6 for each in (meter_s, orjson_s))
        ratio = meter_us / orjson_us
        figures[f"{name}_us"] = round(meter_us, 3)
        figures[f"{name}_ratio"] = round(ratio, 2)
        print(f"{name:28}{meter_us:10.2f}{orjson_us:11.2f}{ratio:8.2f}{1e6 / meter_us:12,.0f}")
    figures["bytes_per_closed_source"] = round(bytes_per_source(100_000))
    print(f"memory of a source that closed cleanly: {figures['bytes_per_closed_source']} bytes")
    cpu_us, ratio = figures["size_200_dims_1000_us"], figures["size_200_dims_1000_ratio"]
    all_us = figures["size_200_dims_1000_budgets_us"]
    targets = [
        {"what": "CPU µs per event, envelopes of 200", "value": cpu_us, "target": 7.0},
        {"what": "CPU µs per event, 20 budgets besides", "value": all_us, "target": 7.0},
        {"what": "ratio to orjson.loads per line", "value": ratio, "target": 5.0},
        {"what": "goal: events/s on one core", "value": round(1e6 / cpu_us), "target": 200_000},
    ]
    for target in targets:
        at_least = target["what"].startswith("goal")
        value, limit = target["value"], target["target"]
        target["holds"] = value >= limit if at_least else value <= limit
        print(f"{'holds' if target['holds'] else 'FAILS':7}{target['what']}: {value} ({limit})")
    if options.json:
        machine = (
            f"{platform.machine()} {platform.python_implementation()} {platform.python_version()}"
        )
        print(
            json.dumps(
                {"name": "meter", "machine": machine, "figures": figures, "targets": targets}
            )
        )


if __name__ == "__main__":
    main()
