"""Tells of sources whose clock is not the log's. Nothing is shifted: times stay as they were sent.

An envelope that says it was sent after the log had it comes from a clock that is ahead. One that
comes late may have waited in a spool, whose backlog comes faster than it was made; so a clock is
said to be behind only if everything has come late for a while, and as late at the end of it as in
the beginning. A source that always sends that late looks the same, and the alert says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from callmeter.schema.alerts import Alert, AlertKind
from callmeter_processors.limits import MeterLimits
from callmeter_processors.sequence import Sources
from callmeter_processors.telling import told
from callmeter_processors.tracker import Tracker

#: Late sources that are kept in mind; the oldest gives way, and is suspected anew.
MAX_SUSPECTS = 10_000


class _Finding(NamedTuple):
    """An envelope of a source, and how late it came (negative: before it was sent)."""

    source: str
    tracker: Tracker
    log_us: int
    late_us: int


class _Suspect(NamedTuple):
    """Late since this log time, by so much then."""

    since_us: int
    late_us: int


class SkewAlerts:
    """Compares sent times with the log's. What was said is part of each source's row."""

    def __init__(self, log_id: str, sources: Sources, limits: MeterLimits) -> None:
        self._log_id = log_id
        self._sources = sources
        self._limit_us = limits.skew_us
        self._steady_us = limits.skew_steady_us
        self._suspects: dict[str, _Suspect] = {}
        self._found: list[Alert] = []

    def take(self, source: str, tracker: Tracker, log_us: int, sent_us: int) -> None:
        """Look at an envelope that came for the first time."""
        late_us = log_us - sent_us
        agrees = abs(late_us) <= self._limit_us
        if agrees and self._suspects:
            self._suspects.pop(source, None)
        if agrees == (not tracker.skewed):
            return
        found = _Finding(source, tracker, log_us, late_us)
        if agrees:
            says = f"the clock of source {source} agrees with the log's again"
            self._say(AlertKind.CLOCK_AGREES, found, says)
            tracker.skewed = 0
        elif late_us < 0:
            tracker.skewed = tracker.next
            says = f"the clock of source {source} is {-late_us // 1_000_000} s ahead of the log's"
            self._say(AlertKind.CLOCK_SKEW, found, says)
        else:
            first = self._suspects.setdefault(source, _Suspect(log_us, late_us))
            if len(self._suspects) > MAX_SUSPECTS:
                del self._suspects[next(iter(self._suspects))]
            if abs(late_us - first.late_us) > self._limit_us:
                self._suspects[source] = _Suspect(log_us, late_us)
            elif log_us - first.since_us >= self._steady_us:
                del self._suspects[source]
                tracker.skewed = tracker.next
                says = (
                    f"all of source {source} comes {late_us // 1_000_000} s after it was sent: its "
                    "clock is behind the log's, or it sends that late"
                )
                self._say(AlertKind.CLOCK_SKEW, found, says)

    def look(self) -> Iterator[Alert]:
        """What there is to say, once."""
        found, self._found = self._found, []
        return iter(found)

    def _say(self, kind: AlertKind, found: _Finding, says: str) -> None:
        source, tracker, at_us, late_us = found
        self._sources.note(source, tracker)
        alert = told(
            kind,
            AlertKind.CLOCK_SKEW,
            log=self._log_id,
            source=source,
            about=tracker.skewed,
            at_us=at_us,
            message=says,
        )
        alert.project = tracker.project
        alert.measure, alert.value, alert.limit = "clock_us", str(-late_us), str(self._limit_us)
        self._found.append(alert)
