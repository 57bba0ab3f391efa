"""SyGra's metadata tracking over callmeter: the names its users know, the meter behind them.

    from callmeter.compat.sygra import get_metadata_collector, run, track_model_request, track_node

    with run(task="tasks.examples.summaries") as this:
        ...                                     # decorated models and nodes are recorded
    print(this.metadata_path)                   # tasks/examples/summaries/metadata/metadata_….json

track_model_request ─┐
MetadataTracking…    ├─ records ─┬─ totals of the run ── document ── file, summary
track_node           ┘           └─ callmeter's events ── store ── callmeter run-metadata
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from callmeter.compat.sygra.collector import MetadataCollector, get_metadata_collector
from callmeter.compat.sygra.costs import calculate_cost
from callmeter.compat.sygra.document import document
from callmeter.compat.sygra.latency import latency_statistics
from callmeter.compat.sygra.nodes import NODE_TYPES, track_node
from callmeter.compat.sygra.requests import track_model_request
from callmeter.compat.sygra.run import run
from callmeter.compat.sygra.tokens import ERROR_PREFIX, TokenUsage, token_counts

if TYPE_CHECKING:
    from callmeter.compat.sygra.langchain import MetadataTrackingCallback

__all__ = [
    "ERROR_PREFIX",
    "MetadataCollector",
    "MetadataTrackingCallback",
    "NODE_TYPES",
    "TokenUsage",
    "calculate_cost",
    "document",
    "get_metadata_collector",
    "latency_statistics",
    "run",
    "token_counts",
    "track_model_request",
    "track_node",
]


def __getattr__(name: str) -> Any:
    # LangChain takes a second to load, and not everybody has it.
    if name == "MetadataTrackingCallback":
        from callmeter.compat.sygra.langchain import MetadataTrackingCallback

        return MetadataTrackingCallback
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
