"""The Syvain metrics collector's names over callmeter.

    from callmeter.compat.syvain import Collector

    collector = Collector("key", host="http://127.0.0.1:4248")
    experiment = collector.experiment("run-001", meta={"seed": 7})
    with experiment.run():
        experiment.metric("loss", 0.42, step=1, metadata={"split": "train"})
    experiment.flush_or_raise()

experiment ── queue ── lane ── delivery ── callmeter's client ── POST /v1/envelopes
  (caller)   (bounded) (one for each experiment, worked off by the pump's thread or by flush)
"""

from callmeter.compat.syvain.api import CatalogEntry, Series
from callmeter.compat.syvain.base import BaseCollector
from callmeter.compat.syvain.collectors import Collector, JsonlCollector, NoopCollector
from callmeter.compat.syvain.errors import MetricsCollectorError, MetricsRequestError
from callmeter.compat.syvain.experiment import Experiment
from callmeter.compat.syvain.limits import JsonObject
from callmeter.compat.syvain.results import FlushResult

__all__ = [
    "BaseCollector",
    "CatalogEntry",
    "Collector",
    "Experiment",
    "FlushResult",
    "JsonObject",
    "JsonlCollector",
    "MetricsCollectorError",
    "MetricsRequestError",
    "NoopCollector",
    "Series",
]
