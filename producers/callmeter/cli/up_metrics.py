"""What `callmeter up` adds to its collector's /metrics: its meter, watch, sink and notify.

The names are those of the processes of their own, so rules and dashboards hold for both forms.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from callmeter.cli.sink_metrics import SinkMetrics

if TYPE_CHECKING:
    from callmeter.collector.context import RouteInstaller
    from callmeter.embedded import Embedded

logger = logging.getLogger("callmeter.up")


def metrics_routes(pipeline: Embedded) -> Iterator[RouteInstaller]:
    """Adds the lines to the collector's own; without prometheus-client there are only those."""
    from callmeter.collector.context import CONTEXT

    def install(app: Any) -> None:
        lines = _lines(pipeline)
        if lines is not None:
            app[CONTEXT].metrics.add_source(lines)

    yield install


def _lines(pipeline: Embedded) -> Callable[[], Iterable[str]] | None:
    try:
        from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest

        from callmeter_processors.notify.metrics import NotifyMetrics
        from callmeter_processors.runtime.metrics import WorkerMetrics
    except ImportError:
        logger.info("/metrics has the collector alone: pip install 'callmeter[prometheus]'")
        return None
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    registry.register(WorkerMetrics(pipeline.stages))
    registry.register(SinkMetrics(lambda: pipeline.sink.sink.stats))
    if pipeline.notify is not None:
        registry.register(NotifyMetrics(pipeline.notify.notifier))
    return lambda: generate_latest(registry).decode().splitlines()
