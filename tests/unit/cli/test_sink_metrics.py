"""A sink's figures and its readiness."""

from __future__ import annotations

from callmeter.cli.sink_metrics import SinkMetrics, sink_monitor
from callmeter_sinks.stats import SinkStats


def test_every_figure_is_a_series() -> None:
    stats = SinkStats(events=5, inserts=2, quarantined=1, visible_us=1_500_000, lag={3: 7})
    found = {
        (sample.name.removeprefix("callmeter_sink_"), *sample.labels.values()): sample.value
        for family in SinkMetrics(lambda: stats).collect()
        for sample in family.samples
    }
    assert found["events_total",] == 5
    assert found["inserts_total",] == 2
    assert found["quarantined_records_total",] == 1
    assert found["visible_seconds",] == 1.5
    assert found["lag_records", "3"] == 7


def test_it_is_ready_unless_it_waits_for_the_store() -> None:
    stats = SinkStats()
    monitor = sink_monitor("127.0.0.1:0", lambda: stats)
    assert monitor.answer("/readyz")[0] == 200
    stats.waiting_for = "too many parts"
    status, _, body = monitor.answer("/readyz")
    assert status == 503
    assert b"too many parts" in body
    assert monitor.answer("/healthz")[0] == 200
    assert b"callmeter_sink_events_total 0.0" in monitor.answer("/metrics")[2]
