"""The SDK's counters as Prometheus metrics."""

from __future__ import annotations

from callmeter import Stats
from callmeter.integrations.prometheus_sdk import SdkMetrics


def test_every_figure_is_a_series_by_its_kind() -> None:
    stats = Stats("s", accepted=9, delivered=4, pending=3, spooled=2, dropped={"queue_full": 2})
    families = list(SdkMetrics(lambda: stats).collect())
    found = {
        (sample.name.removeprefix("callmeter_sdk_"), *sample.labels.values()): sample.value
        for family in families
        for sample in family.samples
    }
    assert found["accepted_events_total",] == 9
    assert found["delivered_events_total",] == 4
    assert found["pending_events",] == 3
    assert found["spooled_events",] == 2
    assert found["dropped_events_total", "queue_full"] == 2
    kinds = {family.name.removeprefix("callmeter_sdk_"): family.type for family in families}
    assert kinds["retries"] == "counter"
    assert kinds["pending_bytes"] == "gauge"
