"""Standard queries on 1 and 10 million calls in chDB: p50, p95, CPU, rows and bytes read.

    python benchmarks/bench_queries.py [--calls N[,N…]] [--runs N] [--unmerged N] [--seed N]
                                       [--keep DIR] [--cold] [--json]

Calls of 30 days (4 projects, 8 models with a skewed share, 2 % failures) are made by the engine
from ``numbers()``, landed log partition by log partition (32 of them) and folded into deltas as the
meter folds them, so rollups and histograms come through the same views as in production. Then
merges are stopped and each log partition inserts two more batches, so 64 unmerged parts lie in
every table when the questions are asked (with merges running, a table that took 6 inserts a second
held 3 to 9 parts). Questions marked ``raw`` read single calls, those marked
``projection`` sums within the parts of the calls; both have no target here. ``--cold`` forgets the
decompressed blocks before each question: the price of one whose blocks nobody has asked for yet.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from callmeter_sinks.clickhouse.chdb_store import ChdbStore
from callmeter_sinks.clickhouse.migrate import migrate
from callmeter_sinks.queries import Queries
from callmeter_sinks.verify import verify

PARTITIONS = 32
DAYS = 30
END = datetime(2026, 3, 31, tzinfo=UTC)
START = END - timedelta(days=DAYS)
TARGET_MS = 100.0

# One call from one number: every column is a hash of the seed and the number, so any range of
# numbers can be made anywhere, in any order, and is the same each time.
ROWS = """
SELECT number AS i, cityHash64({seed:UInt64}, number) AS h,
  ['shop', 'shop', 'lab', 'ops', 'web'][1 + h % 5] AS project,
  if(h % 11 = 0, 'staging', 'prod') AS environment, concat(project, '-api') AS service,
  least(bitShiftRight(h, 8) % 8, bitShiftRight(h, 16) % 8) AS m,
  ['gpt-4o', 'gpt-4o-mini', 'claude-sonnet-4-5', 'claude-haiku-4-5', 'gemini-2.5-pro',
   'gemini-2.5-flash', 'text-embedding-3-small', 'o3'][1 + m] AS model,
  ['openai', 'openai', 'anthropic', 'anthropic', 'google', 'google', 'openai', 'openai'][1 + m]
    AS provider,
  if(m = 6, 'embeddings', 'chat') AS operation, '' AS phase,
  if(bitShiftRight(h, 24) % 50 = 0, 'error', 'ok') AS status,
  fromUnixTimestamp64Micro(toInt64({start:Int64} + toInt64(h % {span:UInt64})), 'UTC')
    AS started_at,
  toUInt64(exp2(10 + (bitShiftRight(h, 32) % 1000) / 100)) AS latency_us,
  toUInt64(bitShiftRight(h, 40) % 4000) AS input_tokens,
  toUInt64(bitShiftRight(h, 48) % 800) AS output_tokens,
  toUInt128(input_tokens * 150000 + output_tokens * 600000) AS pico,
  toUInt16({partition:UInt16}) AS partition
FROM numbers({first:UInt64}, {count:UInt64})
"""
CALLS = f"""
INSERT INTO calls (project, environment, service, provider, model, operation, phase, status, user,
  session, started_at, ts, attempts, latency_us, input_tokens, output_tokens, usage, cost, call_id,
  trace_id, tags, log_ts, log_id, partition, origin, idx)
SELECT project, environment, service, provider, model, operation, phase, status,
  concat('u', toString(h % 5000)), concat('s', toString(h % 100000)), started_at, started_at, 1,
  latency_us, input_tokens, output_tokens, map('input', input_tokens, 'output', output_tokens),
  reinterpret(toInt128(pico), 'Decimal(38, 12)'),
  reinterpretAsUUID(concat(reinterpretAsString(h), reinterpretAsString(i))),
  reinterpretAsUUID(concat(reinterpretAsString(h), reinterpretAsString(intDiv(i, 3)))),
  map('team', concat('t', toString(h % 20))), started_at,
  toUUID('019a0000-0000-7000-8000-000000000001'), partition, intDiv(i, 200), 1 + i % 200
FROM ({ROWS})
"""
DELTAS = f"""
INSERT INTO delta_lines (minute, project, environment, service, provider, model, operation, phase,
  status, calls, attempts, failures, usage, cost, latency_count, latency_sum_us, latency_min_us,
  latency_max_us, latency_hist, first_at, last_at, log_ts)
SELECT toStartOfMinute(toDateTime(started_at, 'UTC')) AS minute, project, environment, service,
  provider, model, operation, phase, status, count(), count(), countIf(status != 'ok'),
  map('input', sum(input_tokens), 'output', sum(output_tokens)),
  reinterpret(toInt128(sum(pico)), 'Decimal(38, 12)'), count(), sum(latency_us), min(latency_us),
  max(latency_us), sumMap(map(toInt16(floor(log2(latency_us) * 32)), toUInt64(1))),
  min(started_at), max(started_at), max(started_at)
FROM ({ROWS})
GROUP BY minute, project, environment, service, provider, model, operation, phase, status
"""


def insert(store: ChdbStore, seed: int, partition: int, first: int, count: int) -> None:
    """One batch of one log partition: its calls, and the deltas of them."""
    values = {
        "seed": seed, "start": int(START.timestamp()) * 1_000_000,
        "span": DAYS * 86_400_000_000, "partition": partition, "first": first, "count": count,
    }  # fmt: skip
    settings = {"max_partitions_per_insert_block": 0, "max_insert_threads": 1}
    for statement in (CALLS, DELTAS):
        store.command(statement, values, settings)


def fill(store: ChdbStore, calls: int, seed: int, batches: int) -> None:
    """All calls but a fiftieth, merged as far as the engine gets; the rest in unmerged parts."""
    small = max(calls // 50 // (PARTITIONS * batches), 1)
    bulk = calls - small * PARTITIONS * batches
    first = 0
    for partition in range(PARTITIONS):
        count = bulk // PARTITIONS + (partition < bulk % PARTITIONS)
        insert(store, seed, partition, first, count)
        first += count
    for table in (
        "calls",
        "hist_models_1h",
        *(f"{kind}_{w}" for kind in ("rollup", "hist") for w in ("1m", "1h", "1d")),
    ):
        store.command(f"OPTIMIZE TABLE {table}")
    store.command("SYSTEM STOP MERGES")
    for _ in range(batches):
        for partition in range(PARTITIONS):
            insert(store, seed, partition, first, small)
            first += small


def questions(ask: Queries) -> dict[str, Callable[[], Any]]:
    """Name to question; ``raw`` in the name means that single calls are read."""
    week, day, hours = (
        END - timedelta(**{k: v}) for k, v in (("days", 7), ("days", 1), ("hours", 6))
    )
    odd = START + timedelta(hours=13, minutes=7)
    trace = ask.calls(limit=1)[0].trace_id
    return {
        "totals, 30 days": lambda: ask.report([]),
        "by model, 30 days": lambda: ask.report(["model"]),
        "by project, model, 30 days": lambda: ask.report(["project", "model"]),
        "by day, model, 30 days": lambda: ask.report(["day", "model"]),
        "by model, 29 days from 13:07": lambda: ask.report(["model"], since=odd),
        "by hour, model, 7 days": lambda: ask.report(["hour", "model"], since=week),
        "by hour, 1 day, one project": lambda: ask.report(["hour"], since=day, project="shop"),
        "by minute, 6 hours": lambda: ask.report(["minute"], since=hours),
        "top 5 services, 7 days": lambda: ask.report(["service"], since=week, top=5),
        "usage by unit and model, 30 days": lambda: ask.usage(["model"]),
        "failures by model, 7 days": lambda: ask.report(
            ["model"], since=week, filters={"status": "error"}
        ),
        "projection: top 10 users, 1 day": lambda: ask.report(
            ["user"], since=day, top=10, latencies=False
        ),
        "projection: top 10 users, 30 days": lambda: ask.report(
            ["user"], since=START, top=10, latencies=False
        ),
        "projection: costliest users, 30 days": lambda: ask.spenders(since=START),
        "projection: errors, 30 days": lambda: ask.errors(since=START),
        "raw: top 10 users, 1 day": lambda: ask.report(["user"], since=day, top=10),
        "raw: by team tag, 1 day": lambda: ask.report(["tag:team"], since=day),
        "projection: errors, 1 day": lambda: ask.errors(since=day),
        "raw: newest 100 calls, one project": lambda: ask.calls(since=day, project="shop"),
        "raw: one trace": lambda: ask.trace(trace),
    }


class Counting:
    """A store that adds up what the engine read, by its own statistics."""

    def __init__(self, store: ChdbStore) -> None:
        self._store = store
        self.statements = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def query(self, *args: Any, **kwargs: Any) -> Any:
        self.statements += 1
        return self._store.query(*args, **kwargs)


def read_events(store: ChdbStore) -> tuple[int, int]:
    """Rows and bytes that SELECTs of this engine have read so far."""
    rows = store.query(
        "SELECT sumIf(value, event = 'SelectedRows'), sumIf(value, event = 'SelectedBytes') "
        "FROM system.events"
    ).rows
    return rows[0][0], rows[0][1]


def measure(calls: int, args: argparse.Namespace) -> dict[str, Any]:
    runs, keep = args.runs, args.keep
    with ExitStack() as stack:
        if keep is None:
            path = Path(tempfile.mkdtemp(prefix="callmeter-bench-"))
            stack.callback(shutil.rmtree, path, ignore_errors=True)
        else:
            path = keep / str(calls)
        fresh = not path.exists() or not any(path.iterdir())
        store = ChdbStore(path)
        stack.callback(store.close)
        migrate(store)
        began = time.monotonic()
        if fresh:
            fill(store, calls, args.seed, args.unmerged)
        filled_s = time.monotonic() - began
        store.command("SYSTEM STOP MERGES")
        counting = Counting(store)
        figures: dict[str, Any] = {}
        for name, question in questions(Queries(counting)).items():  # type: ignore[arg-type]
            counting.statements = 0
            before = read_events(store)
            question()  # warms caches, and is counted instead of timed
            after = read_events(store)
            cpu_s = 0.0
            times = []
            for _ in range(runs):
                if args.cold:
                    store.command("SYSTEM DROP UNCOMPRESSED CACHE")
                cpu_s -= time.process_time()
                times.append(timed(question))
                cpu_s += time.process_time()
            times.sort()
            figures[name] = {
                "cpu_ms": round(cpu_s * 1000 / runs, 1),
                "p50_ms": round(statistics.median(times), 1),
                "p95_ms": round(times[max(-(-95 * len(times) // 100) - 1, 0)], 1),
                "statements": counting.statements // (runs + 1),
                "rows_read": after[0] - before[0],
                "mb_read": round((after[1] - before[1]) / 2**20, 1),
            }
        began = time.monotonic()
        last_day = verify(store, since=END - timedelta(days=1))
        rollups = [c for c in last_day.checks if "ledger" not in c.what and "control" not in c.what]
        parts, size, rows = store.query(
            "SELECT countIf(table = 'rollup_1m'), sumIf(data_compressed_bytes, table = 'calls'), "
            "sumIf(rows, table = 'rollup_1m') FROM system.parts "
            "WHERE active AND database = currentDatabase()"
        ).rows[0]
        return {
            "fill_s": round(filled_s, 1),
            "rollup_1m_parts": parts,
            "rollup_1m_rows": rows,
            "bytes_per_call": round(size / calls, 1),
            "verify_1_day_s": round(time.monotonic() - began, 2),
            "rollups_equal": all(c.equal for c in rollups if c.what in ("calls", "cost_usd")),
            "queries": figures,
        }


def timed(question: Callable[[], Any]) -> float:
    began = time.perf_counter()
    question()
    return (time.perf_counter() - began) * 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--calls", default="1000000,10000000")
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--unmerged", type=int, default=2, help="batches of each log partition")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="keep the stores here, and use them again")
    parser.add_argument("--cold", action="store_true", help="nothing decompressed is kept")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    figures: dict[str, Any] = {}
    targets = []
    for calls in map(int, args.calls.split(",")):
        result = figures[str(calls)] = measure(calls, args)
        queries = result["queries"]
        slowest = max(
            q["p95_ms"] for name, q in queries.items() if not name.startswith(("raw", "projection"))
        )
        targets.append(
            {"what": f"slowest standard query, {calls:,} calls, p95 ms", "value": slowest,
             "target": TARGET_MS, "holds": slowest <= TARGET_MS}
        )  # fmt: skip
        said = {name: value for name, value in result.items() if name != "queries"}
        print(f"\n{calls:,} calls: " + ", ".join(f"{k} {v}" for k, v in said.items()))
        for name, q in queries.items():
            print(
                f"  {name:36} p50 {q['p50_ms']:7.1f} ms  p95 {q['p95_ms']:7.1f} ms  "
                f"CPU {q['cpu_ms']:6.1f} ms  "
                f"{q['statements']} statements  {q['rows_read']:>12,} rows  {q['mb_read']:>8} MB"
            )
        print(f"  slowest standard query: {slowest} ms p95, target {TARGET_MS:.0f} ms")
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    if args.json:
        said = {"name": "queries", "machine": machine, "figures": figures, "targets": targets}
        print(json.dumps(said))


if __name__ == "__main__":
    main()
