"""A worker's figures as Prometheus metrics; every name is in docs/reference/metrics.md.

Nothing is counted here: a scrape reads ``RuntimeStats``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from callmeter.errors import MissingExtraError
from callmeter_processors.runtime.stats import Distribution, PartitionStats, RuntimeStats

try:
    from prometheus_client.core import (
        CounterMetricFamily,
        GaugeMetricFamily,
        HistogramMetricFamily,
    )
except ImportError as exc:
    raise MissingExtraError("prometheus-client", "prometheus") from exc

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

PREFIX = "callmeter_worker"
#: Plain counters: name without ``_total`` → (attribute of ``RuntimeStats``, what it says).
_COUNTERS = {
    "records": ("records", "Records processed and checkpointed or about to be."),
    "record_bytes": ("bytes", "Bytes of these records, uncompressed."),
    "output_records": ("outputs", "Records written with checkpoints."),
    "written_rows": ("rows", "State rows written with checkpoints."),
    "skipped_records": ("skipped", "Records delivered again below the position, and skipped."),
    "healed_records": ("healed", "Records read from the log that the group had left out."),
    "lost_records": ("lost", "Offsets that retention removed unread, passed with --accept-loss."),
    "partition_restarts": ("restarts", "Partitions thrown away and restored from the log."),
    "rebalances": ("rebalances", "Rebalances of the group seen by this worker."),
}
#: What steps count: the first part of a ``Count`` → (name, label, what it says).
_COUNTS = {
    "events": ("events", "", "Event lines judged in these records."),
    "envelopes": ("envelopes", "verdict", "Envelopes judged."),
    "dead_letters": ("dead_letters", "reason", "Lines and envelopes refused."),
    "sequence": ("sequence_envelopes", "change", "Envelopes found missing, filled or given up."),
    "alerts": ("alerts", "kind", "Alerts written."),
    "statuses": ("budget_statuses", "", "Budget statuses written."),
}
#: What steps hold: key of ``figures`` → what it says. Each is a gauge by partition.
_FIGURES = {
    "state_rows": "State rows of the partition.",
    "sources_open": "Sources that have not closed, or miss something.",
    "sources_closed": "Sources remembered by their next number alone.",
    "missing_envelopes": "Envelopes missing now.",
    "open_calls": "Calls begun and not ended.",
    "entities": "Budget entities (one for each value of a budget's `per`).",
    "statuses_waiting": "Entities whose status is to be written.",
}


class WorkerMetrics:
    """A Prometheus collector over one runtime: ``registry.register(WorkerMetrics(…))``.

    ``stage`` is ``meter`` or ``watch``, a label of every series. ``clock_s`` is the wall's time.
    """

    def __init__(
        self, stage: str, stats: RuntimeStats, clock_s: Callable[[], float] = time.time
    ) -> None:
        self._stage = stage
        self._stats = stats
        self._clock_s = clock_s

    def describe(self) -> Iterator[Metric]:
        """The same names at any time: registering reads nothing that changes."""
        return self.collect()

    def collect(self) -> Iterator[Metric]:
        """Every family, those without a series too."""
        stats, stage = self._stats, self._stage
        for name, (attribute, says) in _COUNTERS.items():
            counter = _counter(name, says)
            counter.add_metric([stage], getattr(stats, attribute))
            yield counter
        transactions = _counter("transactions", "Transactions by how they ended.", "result")
        ends = {"committed": stats.checkpoints, "fenced": stats.fenced, "failed": stats.failed}
        for result, count in ends.items():
            transactions.add_metric([stage, result], count)
        yield transactions
        yield from self._counts()
        yield self._histogram(
            "event_to_output_seconds",
            "From a record's log time until its outputs are written.",
            stats.latency,
        )
        yield self._histogram(
            "checkpoint_seconds", "Time a checkpoint's transaction took.", stats.transaction
        )
        yield self._histogram(
            "checkpoint_bytes", "Rows and outputs of a checkpoint, uncompressed.", stats.size
        )
        rest = GaugeMetricFamily(
            f"{PREFIX}_rest_seconds", "Rest after the newest checkpoint.", labels=["stage"]
        )
        rest.add_metric([stage], stats.rest_s)
        yield rest
        yield from self._partitions()

    def _counts(self) -> Iterator[Metric]:
        counts = self._stats.counts.copy()
        for what, (name, label, says) in _COUNTS.items():
            family = _counter(name, says, *([label] if label else []))
            for (which, kind), count in sorted(counts.items()):
                if which == what:
                    family.add_metric([self._stage, *([kind] if label else [])], count)
            yield family

    def _partitions(self) -> Iterator[Metric]:
        assigned = self._stats.assigned
        owned = GaugeMetricFamily(
            f"{PREFIX}_partitions", "Partitions by state.", labels=["stage", "state"]
        )
        partitions = self._stats.partitions.copy()
        owned.add_metric([self._stage, "assigned"], len(assigned or ()))
        owned.add_metric([self._stage, "restored"], len(partitions))
        yield owned
        now_s = self._clock_s()
        gauges: list[tuple[str, str, Callable[[PartitionStats], float | None]]] = [
            ("lag_records", "Records that wait.", lambda p: p.lag if p.end_offset >= 0 else None),
            ("next_offset", "The next offset to process.", lambda p: p.next_offset),
            (
                "lag_seconds",
                "Age of the newest processed record while records wait, else 0.",
                lambda p: max(0.0, now_s - p.processed_us / 1e6) if p.lag and p.processed_us else 0,
            ),
            ("restored_rows", "State rows read when it was opened.", lambda p: p.restored_rows),
            ("restore_seconds", "Time it took to open and restore it.", lambda p: p.restore_s),
            *(
                (name, says, lambda p, name=name: p.figures.get(name))
                for name, says in _FIGURES.items()
            ),
        ]
        for name, says, read in gauges:
            family = GaugeMetricFamily(f"{PREFIX}_{name}", says, labels=["stage", "partition"])
            for number, partition in sorted(partitions.items()):
                value = read(partition)
                if value is not None:
                    family.add_metric([self._stage, str(number)], value)
            yield family

    def _histogram(self, name: str, says: str, values: Distribution) -> Metric:
        family = HistogramMetricFamily(f"{PREFIX}_{name}", says, labels=["stage"])
        buckets: list[tuple[str, float]] = []
        total = 0
        for bound, count in zip((*values.bounds, "+Inf"), values.counts, strict=True):
            total += count
            buckets.append((str(bound), total))
        family.add_metric([self._stage], buckets, values.total)
        return family


class StagesMetrics:
    """One Prometheus collector over several runtimes of a process, told apart by ``stage``."""

    def __init__(self, stages: Mapping[str, RuntimeStats]) -> None:
        self._workers = [WorkerMetrics(stage, stats) for stage, stats in stages.items()]

    def describe(self) -> Iterator[Metric]:
        """Names only."""
        return self.collect()

    def collect(self) -> Iterator[Metric]:
        """Each family once, with the series of all stages."""
        for family, *others in zip(*(w.collect() for w in self._workers), strict=True):
            for other in others:
                family.samples.extend(other.samples)
            yield family


def _counter(name: str, says: str, *labels: str) -> CounterMetricFamily:
    return CounterMetricFamily(f"{PREFIX}_{name}", says, labels=["stage", *labels])


def unready(stats: RuntimeStats) -> str | None:
    """Why the worker is not ready; None if it is: in the group, and all that is its own restored.

    A worker beyond the number of partitions has none, and is ready.
    """
    assigned = stats.assigned
    if stats.beat_s is None:
        return "starting"
    if assigned is None:
        return "not in the group"
    missing = sorted(assigned - stats.partitions.keys())
    if missing:
        return f"restoring partitions {', '.join(map(str, missing))}"
    return None


def ailing(stats: RuntimeStats, after_s: float, monotonic_s: float) -> str | None:
    """Why the worker should be killed: its loop has not turned for ``after_s``; None if it has."""
    beat_s = stats.beat_s
    if beat_s is not None and monotonic_s - beat_s > after_s:
        return f"the worker has not moved for {monotonic_s - beat_s:.0f} s"
    return None
