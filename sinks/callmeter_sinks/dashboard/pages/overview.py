"""Overview: spend and calls, durations, failures, and who they come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from functools import partial

from callmeter_sinks.clickhouse.retention import SURELY_KEPT, minutes_kept
from callmeter_sinks.dashboard import charts, figures, timeline
from callmeter_sinks.dashboard.charts import Chart, Line
from callmeter_sinks.dashboard.context import Asked, Page
from callmeter_sinks.dashboard.timeline import Durations, Sums
from callmeter_sinks.dashboard.view import ALL, CUSTOM, View, floor, starts, window_for

_TOP = 8
#: Models with a colour of their own; the rest share one.
_COLOURED = 6
_OTHERS = "all others"
_QUANTILES = ("p50", "p95", "p99")
_NOW = timedelta(minutes=5)


async def page(asked: Asked) -> Page:
    """The page: what sums tell quickly. Its panels come after it, each by a question of its own."""
    asked = await fitting(asked)
    view = asked.view
    models, sums = await asked.read(
        "over_time", partial(timeline.over_time, view=view, by="model", top=_TOP)
    )
    recent = await _recent(asked, sums)
    totals = models.totals
    x = _windows(view, [each.start for each in sums], asked.now)
    return Page(
        "overview.html",
        {
            "title": "Overview",
            "totals": totals,
            "recent": recent,
            "models": models,
            "bounds": None if totals.calls else await _bounds(asked),
            "charts": {
                "cost": cost_chart(view, x, sums),
                "calls": calls_chart(view, x, sums),
            }
            if totals.calls
            else {},
            "origin": f"{asked.request.scheme}://{asked.request.host}",
        },
    )


async def durations(asked: Asked) -> Page:
    """Panel: latency and time to first token, over the time and over all of it."""
    asked = await fitting(asked)
    view = asked.view
    rows, whole = await asked.read("durations", partial(timeline.durations, view=view))
    x = _windows(view, [row.start for row in rows if row.start is not None], asked.now)
    shown = [
        durations_chart(view, x, rows, name, held)
        for name, held in (("latency", whole.latency_ms), ("ttft", whole.ttft_ms))
    ]
    return Page("panel-durations.html", {"charts": shown})


async def services(asked: Asked) -> Page:
    """Panel: the services that cost most."""
    view = asked.view
    rows = await asked.query("report", "service", by=["service"], top=_TOP, **view.asked())
    return Page("panel-services.html", {"services": rows})


async def errors(asked: Asked) -> Page:
    """Panel: failed calls by kind, with the newest as an example."""
    view = asked.view
    rows = await asked.query("errors", view.window, limit=_TOP, **view.asked())
    return Page("panel-errors.html", {"errors": rows})


async def users(asked: Asked) -> Page:
    """Panel: the users that cost most; their durations would take every single call."""
    view = asked.view
    rows = await asked.query("spenders", by=["user"], top=_TOP, **view.asked())
    return Page("panel-users.html", {"users": {"rows": rows}})


async def fitting(asked: Asked) -> Asked:
    """The same question, but all time by the window that suits what there is.

    What is older than minutes are kept is asked for by the hour.
    """
    view = asked.view
    since, window = view.since, view.window
    if view.range == ALL and (bounds := await _bounds(asked)) is not None:
        since, window = bounds[0], window_for(bounds[0], min(bounds[1], asked.now))
    if window == "minute" and since is not None and since < asked.now - SURELY_KEPT:
        kept = await asked.dashboard.reading.ask(
            "minutes kept", lambda queries: minutes_kept(queries.store)
        )
        if kept is not None and since < asked.now - kept + SURELY_KEPT:
            window = "hour"
    return replace(asked, view=replace(view, window=window))


async def _bounds(asked: Asked) -> tuple[datetime, datetime] | None:
    project = asked.view.project
    reading = asked.dashboard.reading
    return await reading.ask(
        ("bounds", project), lambda queries: timeline.bounds(queries.store, project)
    )


async def _recent(asked: Asked, sums: Sequence[Sums]) -> tuple[int, Decimal]:
    """Calls and cost of the last five minutes, which windows of minutes that end now tell too."""
    view, since = asked.view, floor(asked.now, "minute") - _NOW
    if view.window != "minute" or view.until is not None:
        return await asked.read("spent", partial(timeline.spent, view=view, since=since), since)
    newest = [each for each in sums if each.start >= since]
    return sum(each.calls for each in newest), sum((each.cost for each in newest), Decimal(0))


def _windows(view: View, seen: Sequence[datetime], now: datetime) -> list[datetime]:
    """The windows of the charts: of the range, as far as it has begun, empty ones included."""
    if not seen:
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
    texts = [[figures.usd(value) for value in cells[name]] for name in names]
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
    view: View,
    x: Sequence[datetime],
    rows: Sequence[Durations],
    name: str,
    whole: Sequence[float] | None,
) -> Chart:
    """p50, p95 and p99 by window; the note says them over the whole time."""
    held = {
        row.start: row.latency_ms if name == "latency" else row.ttft_ms
        for row in rows
        if row.start is not None
    }
    lines = []
    for place, label in enumerate(_QUANTILES):
        values = [each[place] if (each := held.get(at)) is not None else None for at in x]
        said = [figures.ms(value) for value in values]
        lines.append(Line(label, values, said, charts.colour(place)))
    title = "Latency" if name == "latency" else "Time to first token"
    over = (
        ""
        if whole is None
        else ", ".join(
            f"{label} {figures.ms(value)}" for label, value in zip(_QUANTILES, whole, strict=True)
        )
    )
    return Chart(
        id=name,
        title=f"{title} by {view.window}",
        kind="lines",
        x=charts.epoch(x),
        x_texts=_texts(view, x),
        lines=lines,
        unit="ms",
        note=f"Over the whole time: {over}." if over else "",
    )


def _texts(view: View, x: Sequence[datetime]) -> list[str]:
    form: Mapping[str, str] = {"minute": "%m-%d %H:%M", "hour": "%m-%d %H:%M", "day": "%Y-%m-%d"}
    return [moment.strftime(form[view.window]) for moment in x]
