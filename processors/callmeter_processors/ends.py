"""Tells of sources that end without a close, and of those that speak again after that (law 7)."""

from __future__ import annotations

from collections.abc import Iterator

from callmeter.schema.alerts import Alert, AlertKind
from callmeter_processors.sequence import End, Sources
from callmeter_processors.telling import told
from callmeter_processors.tracker import Tracker


class EndAlerts:
    """Looks for sources that have fallen silent. That it was said is part of each source's row."""

    def __init__(self, log_id: str, sources: Sources) -> None:
        self._log_id = log_id
        self._sources = sources

    def look(self, now_us: int, since_us: int) -> Iterator[Alert]:
        """Sources that speak again, then those that have ended at the log's time ``now_us``.

        Nobody could be heard before ``since_us``: see ``LogTime``. A bounded number at a time.
        """
        resumed, self._sources.resumed = self._sources.resumed, []
        for each in resumed:
            yield self._alert(AlertKind.RESUMED, each, now_us, "speaks again")
        for source, tracker in self._sources.fall_silent(now_us, since_us):
            silent_s = (now_us - tracker.seen_us) // 1_000_000
            says = f"is silent for {silent_s} s and has not closed"
            yield self._alert(
                AlertKind.UNCLEAN_END, End(source, tracker, tracker.next), now_us, says
            )

    def _alert(self, kind: AlertKind, end: End, at_us: int, says: str) -> Alert:
        source, tracker, next_seq = end
        alert = told(
            kind,
            AlertKind.UNCLEAN_END,
            log=self._log_id,
            source=source,
            about=next_seq,
            at_us=at_us,
            message=f"source {source}{_of(tracker)} {says}",
        )
        alert.project = tracker.project
        alert.first_seq = next_seq
        return alert


def _of(tracker: Tracker) -> str:
    return f" of {tracker.service}" if tracker.service else ""
