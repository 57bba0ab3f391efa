"""Notify's figures as Prometheus metrics; docs/reference/metrics-notify.md is generated from here.

Nothing is counted here: a scrape reads ``NotifyStats`` and asks the outbox what waits.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from callmeter.scrape import Family, Scraped, counter, gauge

if TYPE_CHECKING:
    from callmeter_processors.notify.notifier import Notifier

PREFIX = "callmeter_notify"
#: Counter → (attribute of ``NotifyStats``, what it says).
COUNTERS = {
    "alerts": ("taken", "Alerts taken from the log that were not known before."),
    "known_alerts": ("known", "Alerts seen again, and not sent again."),
    "old_alerts": ("old", "Alerts from before the first start, taken as known."),
    "unreadable_records": ("unreadable", "Records of the topic `alerts` that are no alert."),
    "removed_records": (
        "removed",
        "Records, at most, that retention had removed from the log before they were read.",
    ),
    "delivered": ("delivered", "Deliveries that a target took."),
    "failed_attempts": ("retried", "Attempts that failed and are made again."),
    "dead_letters": ("dead", "Deliveries given up, in the dead-letter file."),
}
#: Gauge by ``target`` → what it says.
BY_TARGET = {
    "waiting": "Deliveries that wait for the target.",
    "waiting_seconds": "Age of the oldest delivery that waits for the target, since it was taken.",
}
READ = "read_timestamp_seconds"
READ_SAYS = "When the log was last read to its end, or records were; 0 before that."


class NotifyMetrics(Scraped):
    """A Prometheus collector over a running notifier. ``clock_s`` is the wall's time."""

    prefix = PREFIX

    def __init__(self, notifier: Notifier, clock_s: Callable[[], float] = time.time) -> None:
        self._notifier = notifier
        self._clock_s = clock_s

    def families(self) -> Iterator[Family]:
        """Targets that wait for nothing are 0."""
        notifier = self._notifier
        for name, (attribute, says) in COUNTERS.items():
            yield counter(name, says, getattr(notifier.stats, attribute))
        now_s = self._clock_s()
        waiting, seconds = [], []
        for target, backlog in sorted(notifier.backlog.items()):
            labels = {"target": target}
            waiting.append((labels, float(backlog.waiting)))
            seconds.append((labels, max(0.0, now_s - backlog.since_us / 1e6)))
        for (name, says), series in zip(BY_TARGET.items(), (waiting, seconds), strict=True):
            yield gauge(name, says, series)
        yield gauge(READ, READ_SAYS, notifier.read_us / 1e6)


def unready(notifier: Notifier, after_s: float, now_us: int) -> str | None:
    """Why it does not do its work: the log was not read for ``after_s``; None if it was."""
    if not notifier.read_us:
        return "the log was not read yet"
    silent_s = (now_us - notifier.read_us) / 1e6
    return f"the log was not read for {silent_s:.0f} s" if silent_s > after_s else None


def ailing(notifier: Notifier) -> str | None:
    """Why it should be started again; None if all its threads run."""
    return None if notifier.failed is None else f"a target's thread has ended: {notifier.failed}"
