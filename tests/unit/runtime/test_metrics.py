"""A worker's metrics: what a runtime has counted, under the names that are documented."""

from __future__ import annotations

import re
from pathlib import Path

from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from callmeter.clock import ManualClock, SystemClock
from callmeter.log.record import NewRecord
from callmeter.log.sqlite_log import SqliteLog
from callmeter_processors.meter import meter_factory
from callmeter_processors.runtime.local import LocalRuntime
from callmeter_processors.runtime.metrics import WorkerMetrics, ailing, unready
from callmeter_processors.runtime.stats import PartitionStats, RuntimeStats
from support.metering import TablePricer, call_end, envelope, source

ROOT = Path(__file__).parents[3]


def samples(stats: RuntimeStats) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(WorkerMetrics({"meter": stats}, clock_s=lambda: 1000.0))
    return registry


def test_a_meter_counts_what_it_has_written(tmp_path: Path):
    log = SqliteLog(tmp_path / "log.db", partitions=1)
    key = source(1).encode()
    now_us = SystemClock().now_us()
    sent = [
        envelope([call_end(), b"no json"], seq=0, sent_us=now_us),
        envelope([call_end(), b"no json"], seq=0, sent_us=now_us),
        envelope([call_end()], seq=4, sent_us=now_us),
        envelope([call_end()], seq=2, sent_us=now_us),
        envelope([call_end()], seq=5, sent_us=now_us) + b"{}\n",
    ]
    log.append([NewRecord("events", key, value) for value in sent])
    runtime = LocalRuntime(log, meter_factory(TablePricer()))
    runtime.start()
    runtime.drain()
    runtime.stop()
    log.close()
    found = samples(runtime.stats)

    def value(name: str, **labels: str) -> float | None:
        return found.get_sample_value(f"callmeter_worker_{name}", {"stage": "meter", **labels})

    verdicts = {v: value("envelopes_total", verdict=v) for v in ("accepted", "duplicate")}
    assert verdicts == {"accepted": 3, "duplicate": 1}
    assert value("envelopes_total", verdict="refused") == 1
    assert value("dead_letters_total", reason="count_mismatch") == 1
    assert value("dead_letters_total", reason="bad_json") == 1
    assert value("sequence_envelopes_total", change="missing") == 3
    assert value("sequence_envelopes_total", change="filled") == 1
    assert value("records_total") == 5
    assert value("next_offset", partition="0") == 5
    assert value("lag_records", partition="0") == 0
    assert value("event_to_output_seconds_count") == 5
    assert value("checkpoint_seconds_count") == value("transactions_total", result="committed")
    assert value("checkpoint_bytes_sum") > 1000


def test_lag_is_told_in_records_and_in_seconds():
    stats = RuntimeStats()
    stats.partitions[3] = PartitionStats(next_offset=10, end_offset=25, processed_us=940_000_000)
    stats.partitions[4] = PartitionStats(next_offset=10, end_offset=10, processed_us=940_000_000)
    stats.partitions[5] = PartitionStats(next_offset=10)
    found = samples(stats)

    def gauge(name: str) -> list[float | None]:
        labels = ({"stage": "meter", "partition": str(p)} for p in (3, 4, 5))
        return [found.get_sample_value(f"callmeter_worker_{name}", each) for each in labels]

    assert gauge("lag_records") == [15, 0, None]
    assert gauge("lag_seconds") == [60, 0, 0]


def test_ready_means_restored_and_well_means_moving():
    stats, clock = RuntimeStats(), ManualClock()
    assert unready(stats) == "starting"
    assert ailing(stats, 60, clock.monotonic_s()) is None
    stats.beat_s = clock.monotonic_s()
    assert unready(stats) == "not in the group"
    stats.assigned = frozenset({1, 2})
    stats.partitions[1] = PartitionStats()
    assert unready(stats) == "restoring partitions 2"
    stats.partitions[2] = PartitionStats()
    assert unready(stats) is None
    stats.assigned = frozenset()
    assert unready(stats) is None, "a worker beyond the partitions waits for its turn"
    clock.advance(61)
    assert "not moved for 61 s" in (ailing(stats, 60, clock.monotonic_s()) or "")


def test_every_name_is_documented_and_nothing_else():
    documented = set(
        re.findall(r"`(callmeter_worker_\w+)`", (ROOT / "docs/reference/metrics.md").read_text())
    )
    said = set()
    registry = samples(RuntimeStats())
    for family in registry.collect():
        said.add(f"{family.name}_total" if family.type == "counter" else family.name)
    assert said == documented


def test_prometheus_reads_it():
    from prometheus_client import generate_latest

    stats = RuntimeStats()
    stats.counts["dead_letters", 'odd "reason"\n'] = 2
    families = {
        family.name: family
        for family in text_string_to_metric_families(generate_latest(samples(stats)).decode())
    }
    letters = families["callmeter_worker_dead_letters"].samples
    assert [(s.labels["reason"], s.value) for s in letters] == [('odd "reason"\n', 2)]
