"""Tells of envelopes that are missing: gaps in a source's numbers that stay open (law 7)."""

from __future__ import annotations

from callmeter.schema.alerts import Alert, AlertKind
from callmeter_processors.limits import MeterLimits
from callmeter_processors.sequence import Sources
from callmeter_processors.telling import told
from callmeter_processors.tracker import Tracker


class GapAlerts:
    """Looks at the sources that miss something. What was said is part of each source's row."""

    def __init__(self, log_id: str, sources: Sources, limits: MeterLimits) -> None:
        self._log_id = log_id
        self._sources = sources
        self._after_us = limits.gap_alert_us

    def look(self, now_us: int) -> list[Alert]:
        """Gaps that are old enough at the log's time ``now_us``, and gaps that have closed."""
        found: list[Alert] = []
        for source, tracker in list(self._sources.gappy.items()):
            said = [*self._open(source, tracker, now_us), *self._closed(source, tracker, now_us)]
            if said:
                found.extend(said)
                self._sources.note(source, tracker)
            if not tracker.gaps and not tracker.alerted:
                del self._sources.gappy[source]
        return found

    def _open(self, source: str, tracker: Tracker, now_us: int) -> list[Alert]:
        found = []
        for first, last, since_us in tracker.gaps:
            known = any(low <= first and last <= high for low, high in tracker.alerted)
            if not known and now_us - since_us >= self._after_us:
                tracker.alerted.append([first, last])
                found.append(self._alert(AlertKind.GAP, source, first, last, now_us))
        return found

    def _closed(self, source: str, tracker: Tracker, now_us: int) -> list[Alert]:
        found = []
        left = []
        for low, high in tracker.alerted:
            if any(first <= high and low <= last for first, last, _ in tracker.gaps):
                left.append([low, high])
            elif low >= tracker.floor:
                found.append(self._alert(AlertKind.GAP_CLOSED, source, low, high, now_us))
        tracker.alerted = left
        return found

    def _alert(self, kind: AlertKind, source: str, first: int, last: int, at_us: int) -> Alert:
        says = "are missing" if kind is AlertKind.GAP else "have come after all"
        alert = told(
            kind,
            AlertKind.GAP,
            log=self._log_id,
            source=source,
            about=first,
            at_us=at_us,
            message=f"envelopes {first} to {last} of source {source} {says}",
        )
        alert.measure, alert.value = "envelopes", str(last - first + 1)
        alert.first_seq, alert.last_seq = first, last
        return alert
