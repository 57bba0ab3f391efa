"""Figures of a sink and of its partitions' writers: plain numbers, read from any thread."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class WriterStats:
    """What one partition's writer did since it took over."""

    records: int = 0
    events: int = 0
    bytes: int = 0
    inserts: int = 0
    rebuilds: int = 0
    quarantined: Counter[str] = field(default_factory=Counter)
    lost_origins: int = 0
    #: Log time of the oldest record of the last range until it was visible, microseconds.
    visible_us: int = 0
    worst_visible_us: int = 0


@dataclass
class SinkStats:
    """What the sink did since it started; ``lag`` is records behind the log's end per partition."""

    events: int = 0
    records: int = 0
    inserts: int = 0
    rebuilds: int = 0
    bytes: int = 0
    retries: int = 0
    quarantined: int = 0
    lost_origins: int = 0
    fenced: int = 0
    buffered_bytes: int = 0
    visible_us: int = 0
    worst_visible_us: int = 0
    waiting_for: str | None = None
    lag: dict[int, int] = field(default_factory=dict)


def add(total: SinkStats, stats: WriterStats) -> None:
    """Add one writer's figures to a sink's; of latencies the worst counts."""
    total.events += stats.events
    total.records += stats.records
    total.inserts += stats.inserts
    total.rebuilds += stats.rebuilds
    total.bytes += stats.bytes
    total.quarantined += sum(stats.quarantined.values())
    total.lost_origins += stats.lost_origins
    total.visible_us = max(total.visible_us, stats.visible_us)
    total.worst_visible_us = max(total.worst_visible_us, stats.worst_visible_us)
