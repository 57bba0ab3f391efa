"""From an alert to the trace of the call that it speaks of, or that led to it."""

# ruff: noqa: S608 - only text of this package is put together; every value is bound

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from urllib.parse import quote

from aiohttp import web

from callmeter_sinks.clickhouse.store import Store
from callmeter_sinks.dashboard.context import Asked, Page
from callmeter_sinks.dashboard.definitions import definitions
from callmeter_sinks.dashboard.rendering import HEADERS
from callmeter_sinks.queries import Queries
from callmeter_sinks.queries.alerts import AlertRow
from callmeter_sinks.queries.calls import CallRow
from callmeter_sinks.queries.dimensions import Binding

_LOOKED_AT = 200
_TICK = timedelta(microseconds=1)


async def to_trace(asked: Asked) -> Page | web.StreamResponse:
    """Redirect: to the trace that the alert names, else to that of the newest call it counted."""
    wanted, project = asked.request.match_info["alert_id"], asked.view.project
    reading = asked.dashboard.reading
    alert = await reading.ask(
        ("alert", wanted, project), lambda queries: find(queries, wanted, project)
    )
    if alert is None:
        return _nothing("This alert is not known here.", "/calls")
    if alert.kind in ("gap", "gap_closed"):
        return _go("/data-health#gaps")
    trace_id = alert.trace_id
    if not trace_id:
        call = await reading.ask(
            ("alert's call", wanted, project), lambda queries: led_to(queries, alert, project)
        )
        trace_id = "" if call is None else call.trace_id
    if not trace_id:
        return _nothing("No call that led to this alert is in the store.", "/calls")
    return _go(f"/trace/{quote(trace_id, safe='')}")


def find(queries: Queries, alert_id: str, project: str | None) -> AlertRow | None:
    """An alert by its id, if whoever sees ``project`` may see it."""
    binding = Binding()
    rows = queries.store.query(
        "SELECT at, kind, rule FROM alerts "
        f"WHERE id = {binding.add(alert_id[:64], 'String')} LIMIT 1",
        binding.values,
    ).rows
    if not rows:
        return None
    at, kind, rule = rows[0]
    found = queries.alerts(
        since=at, until=at + _TICK, project=project, kind=kind, rule=rule, limit=1000
    )
    return next((alert for alert in found if alert.id == alert_id), None)


def led_to(queries: Queries, alert: AlertRow, project: str | None) -> CallRow | None:
    """The newest call that had begun by the time of a budget's alert and that the budget counts."""
    scope = _scope(queries.store, alert.rule, project)
    if alert.entity:
        per = _per(queries.store, alert.rule, project)
        scope = {**scope, per: [alert.entity]} if per else scope
    filters = {
        name: list(values)
        for name, values in scope.items()
        if not any(value.endswith("*") for value in values)
    }
    if project is not None:
        filters.pop("project", None)
    prefixes = {name: values for name, values in scope.items() if name not in filters}
    until = alert.at + _TICK
    since = alert.start_at if alert.start_at is not None and alert.start_at < until else None
    calls = queries.calls(
        since=since, until=until, project=project, filters=filters, limit=_LOOKED_AT
    )
    return next((call for call in calls if _counted(call, prefixes)), None)


def _scope(store: Store, rule: str, project: str | None) -> Mapping[str, Sequence[str]]:
    return next((each.scope for each in definitions(store, project) if each.id == rule), {})


def _per(store: Store, rule: str, project: str | None) -> str:
    return next((each.per for each in definitions(store, project) if each.id == rule), "")


def _counted(call: CallRow, scope: Mapping[str, Sequence[str]]) -> bool:
    def value(name: str) -> str:
        tag = name.removeprefix("tag:")
        return call.tags.get(tag, "") if tag != name else str(getattr(call, name, ""))

    return all(
        any(
            value(name).startswith(each[:-1]) if each.endswith("*") else value(name) == each
            for each in accepted
        )
        for name, accepted in scope.items()
    )


def _go(path: str) -> web.Response:
    return web.Response(status=303, headers={"Location": path, **HEADERS})


def _nothing(said: str, back: str) -> Page:
    return Page("nothing.html", {"title": "Not found", "said": said, "back": back}, 404)
