"""A worker's figures as Prometheus metrics; every name is in docs/reference/metrics.md.

Nothing is counted here: a scrape reads ``RuntimeStats``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping

from callmeter.scrape import Family, Scraped, counter, gauge, histogram, told_apart
from callmeter_processors.runtime.stats import Distribution, PartitionStats, RuntimeStats

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
#: Distributions: name → (attribute of ``RuntimeStats``, what it says).
_HISTOGRAMS = {
    "event_to_output_seconds": (
        "latency",
        "From a record's log time until its outputs are written.",
    ),
    "checkpoint_seconds": ("transaction", "Time a checkpoint's transaction took."),
    "checkpoint_bytes": ("size", "Rows and outputs of a checkpoint, uncompressed."),
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


class WorkerMetrics(Scraped):
    """A Prometheus collector over the runtimes of a process, by the stage of each.

    A stage is ``meter`` or ``watch``, a label of every series. ``clock_s`` is the wall's time.
    """

    prefix = "callmeter_worker"

    def __init__(
        self, stages: Mapping[str, RuntimeStats], clock_s: Callable[[], float] = time.time
    ) -> None:
        self._stages = stages
        self._clock_s = clock_s

    def families(self) -> Iterator[Family]:
        """Each family once, with the series of all stages."""
        now_s = self._clock_s()
        return told_apart(
            "stage", {name: _of(stats, now_s) for name, stats in self._stages.items()}
        )


def _of(stats: RuntimeStats, now_s: float) -> Iterator[Family]:
    """One stage's."""
    for name, (attribute, says) in _COUNTERS.items():
        yield counter(name, says, getattr(stats, attribute))
    ends = {"committed": stats.checkpoints, "fenced": stats.fenced, "failed": stats.failed}
    yield counter(
        "transactions",
        "Transactions by how they ended.",
        [({"result": result}, count) for result, count in ends.items()],
    )
    yield from _counts(stats)
    for name, (attribute, says) in _HISTOGRAMS.items():
        values: Distribution = getattr(stats, attribute)
        yield histogram(name, says, values.bounds, values.counts, values.total)
    yield gauge("rest_seconds", "Rest after the newest checkpoint.", stats.rest_s)
    yield from _partitions(stats, now_s)


def _counts(stats: RuntimeStats) -> Iterator[Family]:
    counts = sorted(stats.counts.copy().items())
    for what, (name, label, says) in _COUNTS.items():
        yield counter(
            name,
            says,
            [({label: kind} if label else {}, n) for (which, kind), n in counts if which == what],
        )


def _partitions(stats: RuntimeStats, now_s: float) -> Iterator[Family]:
    partitions = stats.partitions.copy()
    states = {"assigned": len(stats.assigned or ()), "restored": len(partitions)}
    yield gauge(
        "partitions", "Partitions by state.", [({"state": s}, n) for s, n in states.items()]
    )
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
        found = ((number, read(partition)) for number, partition in sorted(partitions.items()))
        yield gauge(
            name, says, [({"partition": str(n)}, value) for n, value in found if value is not None]
        )


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
