"""A sink's figures as Prometheus metrics; docs/reference/metrics-sink.md is generated from here.

Nothing is counted here: a scrape reads ``SinkStats`` of the topic ``metered``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from callmeter.cli.monitor import Monitor
from callmeter.errors import MissingExtraError

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

    from callmeter_sinks.stats import SinkStats

PREFIX = "callmeter_sink"
#: Counter → (attribute of ``SinkStats``, what it says).
COUNTERS = {
    "events": ("events", "Events stored."),
    "records": ("records", "Records of the topic `metered` stored."),
    "inserts": ("inserts", "Inserts that the store has acknowledged."),
    "stored_bytes": ("bytes", "Bytes of the records stored, uncompressed."),
    "rebuilds": ("rebuilds", "Ranges built again after a start or a takeover."),
    "retries": ("retries", "Times the store was asked again after it was away or busy."),
    "quarantined_records": ("quarantined", "Records that ClickHouse refused, set aside."),
    "lost_origins": ("lost_origins", "Origins that retention removed, passed with --accept-loss."),
    "fenced": ("fenced", "Partitions given up to a sink with a higher claim."),
}  # fmt: skip
#: Gauge → (attribute, factor into the unit of its name, what it says).
GAUGES = {
    "buffered_bytes": ("buffered_bytes", 1.0, "Bytes read and not yet inserted."),
    "visible_seconds": (
        "visible_us", 1e-6,
        "From log time until visible, of the oldest record of the last range: the worst partition.",
    ),
    "worst_visible_seconds": ("worst_visible_us", 1e-6, "The worst of these since the start."),
}  # fmt: skip
LAG = "lag_records"
LAG_SAYS = "Records behind the log's end, by partition; looked at every 5 s."


class SinkMetrics:
    """A Prometheus collector over a running sink."""

    def __init__(self, stats: Callable[[], SinkStats]) -> None:
        self._stats = stats

    def describe(self) -> Iterator[Metric]:
        """Names only."""
        return self.collect()

    def collect(self) -> Iterator[Metric]:
        """Every family, those without a series too."""
        try:
            from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
        except ImportError as exc:
            raise MissingExtraError("prometheus-client", "prometheus") from exc
        stats = self._stats()
        for name, (attribute, says) in COUNTERS.items():
            yield CounterMetricFamily(f"{PREFIX}_{name}", says, value=getattr(stats, attribute))
        for name, (attribute, factor, says) in GAUGES.items():
            value = getattr(stats, attribute) * factor
            yield GaugeMetricFamily(f"{PREFIX}_{name}", says, value=value)
        lag = GaugeMetricFamily(f"{PREFIX}_{LAG}", LAG_SAYS, labels=["partition"])
        for partition, records in sorted(stats.lag.items()):
            lag.add_metric([str(partition)], records)
        yield lag


def sink_monitor(address: str, stats: Callable[[], SinkStats]) -> Monitor:
    """``/metrics``, ``/healthz`` and ``/readyz`` of a sink; ready unless it waits for the store."""

    def unready() -> str | None:
        waiting = stats().waiting_for
        return None if waiting is None else f"waits for the store: {waiting}"

    return Monitor(address, [SinkMetrics(stats)], unready=unready)
