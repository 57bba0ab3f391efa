"""Data health: how far the parts are, what never arrived or was refused, what verify says."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

from callmeter_sinks.clickhouse.store import Store
from callmeter_sinks.dashboard.context import Asked, Page
from callmeter_sinks.dashboard.lag import Ends
from callmeter_sinks.queries.books import SourceRow
from callmeter_sinks.queries.details import dead_letter_reasons

_LETTERS = 20
_GAPS = 50
_SOURCES = 50
#: A producer sends a heartbeat every 10 s: one that is silent for this long has no clean end.
SILENT = timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class Part:
    """One partition of the log: what waits for the meter, what waits for the sink."""

    partition: int
    ends: Ends | None
    stored: int
    newest: datetime | None

    @property
    def unstored(self) -> int | None:
        """Metered records that wait for the sink."""
        return None if self.ends is None else max(self.ends.metered - self.stored, 0)


async def page(asked: Asked) -> Page:
    """For a reader of some projects without what speaks of all: partitions and verify."""
    view, dashboard = asked.view, asked.dashboard
    whole = asked.reader.projects is None
    gaps, sources, reasons, letters, parts = await asyncio.gather(
        asked.query("gaps", project=view.project, since=view.since),
        asked.query("sources", project=view.project, since=view.since),
        asked.read(
            "reasons",
            partial(dead_letter_reasons, since=view.since, until=view.until, project=view.project),
        ),
        asked.query(
            "dead_letters", since=view.since, until=view.until, project=view.project, limit=_LETTERS
        ),
        _parts(asked) if whole else _nothing(),
    )
    if whole:
        dashboard.verifying.wanted()
    return Page(
        "data-health.html",
        {
            "title": "Data health",
            "gaps": gaps[:_GAPS],
            "missing": sum(gap.envelopes for gap in gaps if not gap.removed),
            "sources": sources[:_SOURCES],
            "silent": [s for s in sources if not s.closed and asked.now - s.last_at > SILENT],
            "all_sources": len(sources),
            "drops": drops(sources),
            "reasons": reasons,
            "letters": letters,
            "parts": parts,
            "has_ends": dashboard.ends is not None,
            "waiting": sum(
                (part.ends.unmetered if part.ends else 0) + (part.unstored or 0) for part in parts
            ),
            "outcome": dashboard.verifying.last if whole else None,
            "verifying": dashboard.verifying.running,
            "whole": whole,
            "silent_after": SILENT,
        },
    )


def drops(sources: Sequence[SourceRow]) -> Mapping[str, int]:
    """Events that producers dropped before they had a number, by reason, most first."""
    found: dict[str, int] = {}
    for source in sources:
        for reason, number in source.dropped.items():
            found[reason] = found.get(reason, 0) + number
    return dict(sorted(found.items(), key=lambda pair: (-pair[1], pair[0])))


async def _nothing() -> list[Part]:
    return []


async def _parts(asked: Asked) -> list[Part]:
    ends_of = asked.dashboard.ends
    reading = asked.dashboard.reading
    ends = {} if ends_of is None else await reading.ask("ends", lambda _: ends_of())
    stored = await reading.ask("stored", lambda queries: _stored(queries.store))
    return [
        Part(number, ends.get(number), *stored.get(number, (0, None)))
        for number in sorted({*ends, *stored})
    ]


def _stored(store: Store) -> dict[int, tuple[int, datetime]]:
    """By partition: up to where the sink has taken metered records, and the newest envelope.

    Of the newest log, should the store hold several.
    """
    rows = store.query(
        "SELECT e.partition, i.next, e.newest FROM (SELECT partition, max(log_ts) AS newest "
        "FROM envelopes WHERE log_id = (SELECT argMax(log_id, log_ts) FROM envelopes) "
        "GROUP BY partition) AS e LEFT JOIN (SELECT partition, "
        "argMax(last, (generation, owner, last)) + 1 AS next FROM sink_intents "
        "WHERE topic = 'metered' AND log_id = (SELECT argMax(log_id, log_ts) FROM envelopes) "
        "GROUP BY partition) AS i ON i.partition = e.partition ORDER BY e.partition"
    ).rows
    return {partition: (offset, newest) for partition, offset, newest in rows}
