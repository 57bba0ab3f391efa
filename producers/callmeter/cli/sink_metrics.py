"""A sink's figures as Prometheus metrics; docs/reference/metrics-sink.md is generated from here.

Nothing is counted here: a scrape reads ``SinkStats`` of the topic ``metered``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from callmeter.cli.monitor import Monitor
from callmeter.scrape import Family, Scraped, counter, gauge

if TYPE_CHECKING:
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


class SinkMetrics(Scraped):
    """A Prometheus collector over a running sink."""

    prefix = PREFIX

    def __init__(self, stats: Callable[[], SinkStats]) -> None:
        self._stats = stats

    def families(self) -> Iterator[Family]:
        """The lag has a series for each partition that was looked at."""
        stats = self._stats()
        for name, (attribute, says) in COUNTERS.items():
            yield counter(name, says, getattr(stats, attribute))
        for name, (attribute, factor, says) in GAUGES.items():
            yield gauge(name, says, getattr(stats, attribute) * factor)
        lag = sorted(stats.lag.items())
        yield gauge(LAG, LAG_SAYS, [({"partition": str(p)}, records) for p, records in lag])


def sink_monitor(address: str, stats: Callable[[], SinkStats]) -> Monitor:
    """``/metrics``, ``/healthz`` and ``/readyz`` of a sink; ready unless it waits for the store."""

    def unready() -> str | None:
        waiting = stats().waiting_for
        return None if waiting is None else f"waits for the store: {waiting}"

    return Monitor(address, [SinkMetrics(stats)], unready=unready)
