"""Calls: in flight, stuck, alerts of late, and the newest finished ones."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Any

from callmeter.errors import UsageError
from callmeter_sinks.dashboard import figures
from callmeter_sinks.dashboard.context import Asked, Page

ROWS = 50
_ALERTS = 25
_BACK = (timedelta(hours=1), timedelta(days=1))


async def page(asked: Asked) -> Page:
    """``?before=TIME`` goes on from there with older calls."""
    view = asked.view
    before = _before(asked.request.query.get("before"))
    calls, flight, stuck, alerts = await asyncio.gather(
        _newest(asked, before),
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


async def _newest(asked: Asked, before: datetime | None) -> Any:
    """One row more than a page of the newest calls before a time.

    They mostly lie in the last hour, or day: so much is looked at first, and only then all.
    """
    view = asked.view
    end = min(each for each in (before, view.until, asked.now) if each is not None)
    found: Any = []
    for back in (*_BACK, None):
        since = view.since if back is None else end - back
        whole = since is None or (view.since is not None and since <= view.since)
        if whole:
            since = view.since
        wanted = {**view.asked(), "since": since}
        found = await asked.query("calls", before, since, limit=ROWS + 1, before=before, **wanted)
        if whole or len(found) > ROWS:
            break
    return found


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
