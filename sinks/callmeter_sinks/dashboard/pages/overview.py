"""Overview: spend and calls, durations, failures, and who they come from."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from functools import partial

from callmeter_sinks.dashboard import charts, figures, timeline
from callmeter_sinks.dashboard.charts import Chart, Line
from callmeter_sinks.dashboard.context import Asked, Page
from callmeter_sinks.dashboard.timeline import Durations, Sums
from callmeter_sinks.dashboard.view import ALL, CUSTOM, View, floor, starts, window_for

_TOP = 8
#: Models with a colour of their own; the rest share one.
_COLOURED = 6
_OTHERS = "all others"
_NOW = timedelta(minutes=5)


async def page(asked: Asked) -> Page:
    """The page; its panels ``errors`` and ``users`` come after it."""
    bounds = await _bounds(asked)
    asked = replace(asked, view=fitting(asked.view, bounds, asked.now))
    view = asked.view
    models, services, recent, sums, (durations, whole) = await asyncio.gather(
        asked.query("report", "model", by=["model"], top=_TOP, **view.asked()),
        asked.query("report", "service", by=["service"], top=_TOP, **view.asked()),
        _recent(asked),
        asked.read("sums", partial(timeline.sums, view=view, by="model")),
        asked.read("durations", partial(timeline.durations, view=view)),
    )
    totals = models.totals
    x = _windows(view, sums, durations, bounds, asked.now)
    failed = sum(each.failures for each in sums)
    return Page(
        "overview.html",
        {
            "title": "Overview",
            "totals": totals,
            "whole": whole,
            "recent": recent,
            "failed": failed,
            "models": models,
            "services": services,
            "bounds": bounds,
            "charts": {
                "cost": cost_chart(view, x, sums),
                "calls": calls_chart(view, x, sums),
                "latency": durations_chart(view, x, durations, "latency"),
                "ttft": durations_chart(view, x, durations, "ttft"),
            }
            if totals.calls
            else {},
            "origin": f"{asked.request.scheme}://{asked.request.host}",
        },
    )


async def errors(asked: Asked) -> Page:
    """Panel: failed calls by kind, with the newest as an example."""
    view = fitting(asked.view, await _bounds(asked), asked.now)
    rows = await asked.query("errors", view.window, limit=_TOP, **view.asked())
    return Page("panel-errors.html", {"errors": rows})


async def users(asked: Asked) -> Page:
    """Panel: the users that cost most."""
    view = fitting(asked.view, await _bounds(asked), asked.now)
    rows = await asked.query("report", "user", by=["user"], top=_TOP, **view.asked())
    return Page("panel-users.html", {"users": rows})


def fitting(view: View, bounds: tuple[datetime, datetime] | None, now: datetime) -> View:
    """All time by the window that suits what there is."""
    if view.range != ALL or bounds is None:
        return view
    return replace(view, window=window_for(bounds[0], min(bounds[1], now)))


async def _bounds(asked: Asked) -> tuple[datetime, datetime] | None:
    project = asked.view.project
    reading = asked.dashboard.reading
    return await reading.ask(
        ("bounds", project), lambda queries: timeline.bounds(queries.store, project)
    )


async def _recent(asked: Asked) -> object:
    """The last five minutes: what the meter turns at now."""
    since = floor(asked.now, "minute") - _NOW
    wanted = {**asked.view.asked(), "since": since, "until": None}
    return (await asked.query("report", "recent", since, by=[], **wanted)).totals


def _windows(
    view: View,
    sums: Sequence[Sums],
    durations: Sequence[Durations],
    bounds: tuple[datetime, datetime] | None,
    now: datetime,
) -> list[datetime]:
    """The windows of the charts: of the range, as far as it has begun, empty ones included."""
    seen = [each.start for each in sums] + [each.start for each in durations if each.start]
    if not seen or bounds is None:
        return []
    first = view.since if view.since is not None else min(seen)
    last = view.until - timedelta(microseconds=1) if view.until is not None else now
    if view.range in (ALL, CUSTOM):
        last = min(last, max(seen))
    return starts(view.window, first, max(last, *seen))


def cost_chart(view: View, x: Sequence[datetime], sums: Sequence[Sums]) -> Chart:
    """Cost by window, models stacked."""
    by_model: dict[str, Decimal] = {}
    for each in sums:
        by_model[each.group] = by_model.get(each.group, Decimal(0)) + each.cost
    ranked = sorted(by_model, key=lambda name: (-by_model[name], name))
    shown = ranked[:_COLOURED]
    rest = len(ranked) - len(shown)
    names = [*shown, *([_OTHERS] if rest else [])]
    place = {moment: number for number, moment in enumerate(x)}
    cells = {name: [Decimal(0)] * len(x) for name in names}
    for each in sums:
        if each.start in place:
            cells[each.group if each.group in shown else _OTHERS][place[each.start]] += each.cost
    labels = [name or "(no model)" for name in names]
    texts = [[f"{figures.usd(value)} USD" for value in cells[name]] for name in names]
    stack = charts.stacked([(lb, cells[n]) for lb, n in zip(labels, names, strict=True)], texts)
    return Chart(
        "cost", f"Cost by {view.window}, USD", "bars", charts.epoch(x), _texts(view, x), stack,
        "USD",
    )  # fmt: skip


def calls_chart(view: View, x: Sequence[datetime], sums: Sequence[Sums]) -> Chart:
    """Calls by window, failed ones in front of the others."""
    calls: dict[datetime, int] = {}
    failures: dict[datetime, int] = {}
    for each in sums:
        calls[each.start] = calls.get(each.start, 0) + each.calls
        failures[each.start] = failures.get(each.start, 0) + each.failures
    lines = [
        Line(
            label,
            [float(held.get(at, 0)) for at in x],
            [f"{held.get(at, 0):,}" for at in x],
            colour,
        )
        for label, held, colour in (("calls", calls, "c1"), ("failed", failures, "bad"))
    ]
    return Chart(
        "calls", f"Calls by {view.window}", "bars", charts.epoch(x), _texts(view, x), lines, "calls"
    )


def durations_chart(
    view: View, x: Sequence[datetime], rows: Sequence[Durations], name: str
) -> Chart:
    """p50, p95 and p99 by window."""
    held = {
        row.start: row.latency_ms if name == "latency" else row.ttft_ms
        for row in rows
        if row.start is not None
    }
    lines = []
    for place, label in enumerate(("p50", "p95", "p99")):
        values = [each[place] if (each := held.get(at)) is not None else None for at in x]
        said = [figures.ms(value) for value in values]
        lines.append(Line(label, values, said, charts.colour(place)))
    title = "Latency" if name == "latency" else "Time to first token"
    return Chart(
        name, f"{title} by {view.window}", "lines", charts.epoch(x), _texts(view, x), lines, "ms"
    )


def _texts(view: View, x: Sequence[datetime]) -> list[str]:
    form: Mapping[str, str] = {"minute": "%m-%d %H:%M", "hour": "%m-%d %H:%M", "day": "%Y-%m-%d"}
    return [moment.strftime(form[view.window]) for moment in x]
