"""The real meter's records in the real store: raw rows, rollups and control totals agree."""

from __future__ import annotations

import random
import time
import uuid
from decimal import Decimal
from pathlib import Path

import orjson

from callmeter.ids import uuid7
from callmeter.log.record import NewRecord
from callmeter.log.sqlite_log import SqliteLog
from callmeter.pricing import Pricer, installed_book
from callmeter.schema.envelope import Header, encode
from callmeter_processors.meter import PartitionMeter
from callmeter_processors.runtime.local import LocalRuntime
from callmeter_sinks.clickhouse.migrate import migrate
from callmeter_sinks.clickhouse.opening import open_store
from callmeter_sinks.clickhouse.store import Store
from callmeter_sinks.sink import Sink
from callmeter_sinks.source import SqliteSource

_SUMS = "sum(calls), sum(failures), sum(cost), sum(unpriced), sum(usage_unknown)"


def envelopes(count: int, seed: int = 4) -> list[NewRecord]:
    """Events of every kind from three sources; some envelopes come twice, some are none."""
    pick = random.Random(seed)
    now_us = time.time_ns() // 1000
    sources = [uuid7() for _ in range(3)]
    seqs = dict.fromkeys(sources, 0)
    made: list[NewRecord] = []
    for _ in range(count):
        source = pick.choice(sources)
        lines = [line(pick, now_us) for _ in range(pick.randrange(1, 30))]
        header = Header(source, seqs[source], len(lines), now_us, "shop", "prod", "api")
        seqs[source] += 1
        record = NewRecord("events", source.encode(), encode(header, lines))
        made.append(record)
        if pick.random() < 0.1:
            made.append(record)
        if pick.random() < 0.05:
            made.append(NewRecord("events", source.encode(), b"no envelope\n"))
    return made


def line(pick: random.Random, now_us: int) -> bytes:
    started_us = now_us - pick.randrange(40 * 86_400_000_000)
    kind = pick.choice(("call_end",) * 6 + ("cost", "metric", "annotation", "experiment", "broken"))
    event: dict[str, object] = {"kind": kind, "ts_us": started_us}
    if kind == "call_end":
        event |= {
            "call_id": str(uuid.UUID(int=pick.getrandbits(128), version=4)),
            "trace_id": f"{pick.getrandbits(128) | 1:032x}", "started_us": started_us,
            "operation": pick.choice(("chat", "embeddings", "execute_tool")),
            "status": pick.choice(("ok", "error")), "provider": "openai",
            "model": pick.choice(("gpt-4o-mini", "nobody-knows-this")),
        }  # fmt: skip
        if pick.random() < 0.8:
            event["usage"] = {"input": pick.randrange(9999), "output": pick.randrange(999)}
        if pick.random() < 0.8:
            event["latency_us"] = pick.randrange(10**7)
    elif kind == "cost":
        event |= {"started_us": started_us, "cost_pico": str(pick.randrange(-(10**15), 10**15)),
                  "source": "bill"}  # fmt: skip
    elif kind == "metric":
        event |= {"name": "loss", "value": 0.5}
    elif kind == "annotation":
        event |= {"text": "note"}
    elif kind == "experiment":
        event |= {"slug": "e"}
    return orjson.dumps(event)


def test_raw_rows_rollups_and_controls_agree(tmp_path: Path) -> None:
    store = open_store(f"chdb:{tmp_path / 'store'}")
    try:
        migrate(store)
        with SqliteLog(tmp_path / "log.db", partitions=2) as log:
            pricer = Pricer(installed_book())
            for part in range(3):
                log.append(envelopes(40, seed=part))
                meter = LocalRuntime(log, lambda log_id, p: PartitionMeter(log_id, p, pricer))
                meter.drain()
                stats = Sink(store, SqliteSource(log)).drain()
                assert (stats.quarantined, stats.lost_origins) == (0, 0)
                agree(store)
    finally:
        store.close()


def agree(store: Store) -> None:
    model_call = "operation IN ('chat', 'embeddings')"
    bills = Decimal(store.query("SELECT sum(cost) FROM costs").rows[0][0])
    raw = list(
        store.query(
            f"SELECT countIf({model_call}), countIf(status != 'ok'), sum(cost), sum(unpriced), "
            "sum(usage_unknown) FROM calls"
        ).rows[0]
    )
    raw[2] += bills
    assert raw[0] > 0
    assert min(raw[3:]) > 0
    assert list(store.query(f"SELECT {_SUMS} FROM rollup_controls").rows[0]) == raw
    for window in ("1m", "1h", "1d"):
        sums = _SUMS.replace("sum(calls)", f"sumIf(calls, {model_call})")
        assert list(store.query(f"SELECT {sums} FROM rollup_{window}").rows[0]) == raw
    latencies = store.query("SELECT count(latency_us), sum(latency_us) FROM calls").rows
    assert store.query(
        "SELECT arraySum(mapValues(sumMap(latency))), "
        "(SELECT sum(latency_sum_us) FROM rollup_1d) FROM hist_1h"
    ).rows == latencies  # fmt: skip
    controls = store.query(
        "SELECT sum(envelopes), sum(duplicates), sum(refused_envelopes), sum(events), sum(refused) "
        "FROM rollup_controls"
    ).rows
    assert controls == store.query(
        "SELECT count(), countIf(verdict = 'duplicate'), countIf(verdict = 'refused'), "
        "sum(events), sumIf(refused, verdict = 'accepted') FROM envelopes"
    ).rows  # fmt: skip
    assert min(controls[0]) > 0
