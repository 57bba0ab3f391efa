"""Figures of a runtime, as plain numbers: read them from any thread, export them as you like."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from callmeter_processors.step import Count

#: Upper bounds of what is timed, in seconds.
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
#: Upper bounds of what is weighed, in bytes.
BYTES = tuple(float(4**power) for power in range(5, 14))


class Distribution:
    """Counts of values up to each bound, and above the last, and their sum."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    @property
    def count(self) -> int:
        """How many values there were."""
        return sum(self.counts)


@dataclass(slots=True)
class PartitionStats:
    """One owned partition. ``end_offset`` is the log's end as last seen, -1 while unknown.

    ``figures`` are what its step says of itself; ``processed_us`` is the log time of the newest
    record whose outputs are written, 0 before the first.
    """

    next_offset: int = 0
    end_offset: int = -1
    restored_rows: int = 0
    restore_s: float = 0.0
    processed_us: int = 0
    figures: Mapping[str, int] = field(default_factory=dict)

    @property
    def lag(self) -> int:
        """Records that wait; 0 while the end is unknown."""
        return max(0, self.end_offset - self.next_offset)


@dataclass(slots=True)
class RuntimeStats:
    """Counters since the runtime was made; seconds are wall time.

    ``skipped`` are records at or below the position (delivered again), ``healed`` those read from
    the log because the consumer had left them out, ``lost`` offsets that the log no longer holds
    and ``accept_loss`` let pass.
    ``restarts`` counts partitions whose memory was dropped after a failed or fenced transaction;
    ``fenced`` and ``failed`` are those transactions, ``rest_s`` the newest rest after one.
    ``counts`` are what steps have counted and what is written: see ``Checkpoint``. ``assigned`` are
    the partitions that are this runtime's, None before it knows; ``beat_s`` the monotonic time at
    which it was last seen alive, None before it runs.
    """

    records: int = 0
    bytes: int = 0
    skipped: int = 0
    healed: int = 0
    lost: int = 0
    outputs: int = 0
    rows: int = 0
    checkpoints: int = 0
    checkpoint_s: float = 0.0
    last_checkpoint_s: float = 0.0
    restarts: int = 0
    fenced: int = 0
    failed: int = 0
    rebalances: int = 0
    rest_s: float = 0.0
    partitions: dict[int, PartitionStats] = field(default_factory=dict)
    counts: Counter[Count] = field(default_factory=Counter)
    #: From a record's log time until its outputs are written; a transaction's time and bytes.
    latency: Distribution = field(default_factory=lambda: Distribution(SECONDS))
    transaction: Distribution = field(default_factory=lambda: Distribution(SECONDS))
    size: Distribution = field(default_factory=lambda: Distribution(BYTES))
    assigned: frozenset[int] | None = None
    beat_s: float | None = None

    @property
    def events(self) -> int:
        """Event lines that the steps have judged."""
        return self.counts["events", ""]

    @property
    def lag(self) -> int:
        """Records that wait in all owned partitions."""
        return sum(p.lag for p in self.partitions.copy().values())
