"""The SDK's own counters as Prometheus metrics: delivered, spooled, dropped, retried.

    from prometheus_client import REGISTRY, start_http_server
    from callmeter.integrations.prometheus_sdk import SdkMetrics

    REGISTRY.register(SdkMetrics())
    start_http_server(9465)

Nothing is counted here: a scrape reads ``callmeter.stats()``. docs/reference/metrics-sdk.md is
generated from ``METRICS``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import callmeter
from callmeter.scrape import Family, Scraped, counter, gauge

if TYPE_CHECKING:
    from callmeter import Stats

PREFIX = "callmeter_sdk"
#: Name → (attribute of ``Stats``, kind, what it says).
METRICS: dict[str, tuple[str, str, str]] = {
    "accepted_events": ("accepted", "counter", "Events taken from the program."),
    "delivered_events": ("delivered", "counter", "Events that the backend has acknowledged."),
    "pending_events": ("pending", "gauge", "Events that nobody has acknowledged yet."),
    "queued_events": ("queued", "gauge", "Of these, not in an envelope yet."),
    "spooled_events": ("spooled", "gauge", "Of these, on disk."),
    "pending_bytes": ("bytes", "gauge", "Memory for all that is pending, estimated."),
    "envelopes": ("envelopes", "counter", "Envelopes sealed."),
    "retries": ("retries", "counter", "Envelopes sent again."),
    "open_calls": ("open_calls", "gauge", "Calls begun and not ended."),
    "sampled_out_events": ("sampled_out", "counter", "Events left out by sampling."),
    "contained_errors": ("contained", "counter", "Errors of the SDK that the program never saw."),
    "recovered_events": (
        "recovered",
        "counter",
        "Events of dead processes, delivered by this one.",
    ),
}
#: Counters by reason (``callmeter.schema.reasons.DropReason``).
BY_REASON: dict[str, tuple[str, str]] = {
    "dropped_events": ("dropped", "Events dropped, by reason."),
    "recovered_dropped_events": (
        "recovered_dropped",
        "Events of dead processes that were dropped, by reason.",
    ),
}


class SdkMetrics(Scraped):
    """A Prometheus collector over the default client, or over ``stats`` of another one."""

    prefix = PREFIX

    def __init__(self, stats: Callable[[], Stats] = callmeter.stats) -> None:
        self._stats = stats

    def families(self) -> Iterator[Family]:
        """Figures, then counters by reason: one that has none yet has no series."""
        stats = self._stats()
        for name, (attribute, kind, says) in METRICS.items():
            form = counter if kind == "counter" else gauge
            yield form(name, says, getattr(stats, attribute))
        for name, (attribute, says) in BY_REASON.items():
            reasons = sorted(getattr(stats, attribute).items())
            yield counter(name, says, [({"reason": reason}, n) for reason, n in reasons])
