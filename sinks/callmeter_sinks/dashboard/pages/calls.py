"""Calls: in flight, stuck, alerts of late, and the newest finished ones."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from functools import partial

from callmeter.errors import UsageError
from callmeter_sinks.dashboard import figures, listing
from callmeter_sinks.dashboard.context import Asked, Page

ROWS = 50
_ALERTS = 25


async def page(asked: Asked) -> Page:
    """``?before=TIME`` goes on from there with older calls."""
    view = asked.view
    before = _before(asked.request.query.get("before"))
    # One row more than is shown: whether there are older ones.
    newest = partial(listing.newest, view=view, before=before, now=asked.now, limit=ROWS + 1)
    calls, flight, stuck, alerts = await asyncio.gather(
        asked.read("calls", newest, before),
        asked.query("in_flight", project=view.project),
        asked.query("stuck", project=view.project, limit=ROWS),
        asked.query(
            "alerts", since=view.since, until=view.until, project=view.project, limit=_ALERTS
        ),
    )
    older = None
    if len(calls) > ROWS:
        # What began at the same microsecond as the last row shown begins the next page.
        older = figures.iso(calls[ROWS].started_at + timedelta(microseconds=1))
    return Page(
        "calls.html",
        {
            "title": "Calls",
            "calls": calls[:ROWS],
            "older": older,
            "before": before,
            "flight": flight,
            "open": sum(row.open for row in flight),
            "stuck": stuck,
            "alerts": alerts,
        },
    )


def _before(text: str | None) -> datetime | None:
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(f"{text[:40]!r} is no time") from None
    if moment.tzinfo is None or not 1970 <= moment.year <= 2100:
        raise UsageError("'before' is a time with its zone, between 1970 and 2100")
    return moment
