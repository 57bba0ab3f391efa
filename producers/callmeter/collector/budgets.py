"""``GET /v1/budgets/status``: where every budget stands, as an answer or a stream of changes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from aiohttp import web

from callmeter.collector.budget_hub import BudgetHub, BudgetRecords, Change, encode
from callmeter.collector.context import (
    CONTEXT,
    ApiError,
    RouteInstaller,
    require_read,
    require_write,
)
from callmeter.collector.keys import ANY, Grant
from callmeter.schema.budgets import Budget

_HUB: web.AppKey[BudgetHub] = web.AppKey("callmeter_budgets", BudgetHub)
#: A stream without changes says this often that it lives; a reader that hears nothing is cut off.
KEEPALIVE_S = 5.0
_LOAD_S = 10.0


def budget_routes(records: BudgetRecords) -> RouteInstaller:
    """The route over a log's records; see ``BudgetRecords``."""

    def install(app: web.Application) -> None:
        async def follow(_app: web.Application) -> AsyncIterator[None]:
            await hub.start()
            yield
            await hub.stop()

        hub = app[_HUB] = BudgetHub(records)

        async def end_streams(_app: web.Application) -> None:
            hub.end_streams()

        app.cleanup_ctx.append(follow)
        app.on_shutdown.append(end_streams)
        app[CONTEXT].on_drain.append(hub.end_streams)
        app.router.add_get("/v1/budgets/status", status)

    return install


async def status(request: web.Request) -> web.StreamResponse:
    """``?budget=NAME`` (repeatable) and ``?entity=E`` choose; ``?stream`` goes on with changes.

    A stream is server-sent events: ``snapshot`` with the whole answer, then ``definition`` and
    ``status`` for each change, ``{"key", "value"}`` with null for what is gone. Any key may ask: it
    is told of budgets whose scope names only its projects, and of those that name no project, for
    they limit its calls too.
    """
    grant = _any_key(request)
    hub = request.app[_HUB]
    try:
        async with asyncio.timeout(_LOAD_S):
            await hub.loaded.wait()
    except TimeoutError:
        raise ApiError(503, "log", "the budgets are not read yet", retry_after_s=1) from None
    chosen = _Choice(request, grant, hub)
    if "stream" in request.query:
        return await _stream(request, hub, chosen)
    body = encode([c for c in hub.now() if chosen.covers(c)], _more(request))
    return web.Response(body=body, content_type="application/json")


class _Choice:
    """What a request may see and asks for."""

    def __init__(self, request: web.Request, grant: Grant, hub: BudgetHub) -> None:
        self._names = frozenset(request.query.getall("budget", ()))
        self._entity = request.query.get("entity")
        self._grant = grant
        self._hub = hub

    def covers(self, change: Change) -> bool:
        if self._names and change.budget not in self._names:
            return False
        if change.event == "status" and self._entity not in (None, change.entity):
            return False
        if ANY in self._grant.projects:
            return True
        budget = self._hub.budgets.get(change.budget)
        return change.body is None if budget is None else self._may_see(budget, change)

    def _may_see(self, budget: Budget, change: Change) -> bool:
        projects = budget.scope.get("project", ())
        if not all(self._grant.covers(project) for project in projects):
            return False
        per_project = budget.per == "project" and change.event == "status"
        return not per_project or self._grant.covers(change.entity)


async def _stream(request: web.Request, hub: BudgetHub, chosen: _Choice) -> web.StreamResponse:
    response = web.StreamResponse(
        headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"}
    )
    await response.prepare(request)
    queue = hub.join()
    try:
        first = encode([c for c in hub.now() if chosen.covers(c)], _more(request))
        await response.write(b"event: snapshot\ndata: " + first + b"\n\n")
        while hub.joined(queue):
            changes = await _next(queue)
            sent = b"".join(_event(change) for change in changes if chosen.covers(change))
            await response.write(sent or b": alive\n\n")
    except ConnectionError:
        # The reader has gone: that is how streams end.
        return response
    finally:
        hub.leave(queue)
    return response


async def _next(queue: asyncio.Queue[Change | None]) -> list[Change]:
    """The changes that wait, or none after a while without any."""
    found: list[Change | None] = []
    with contextlib.suppress(TimeoutError):  # nothing has changed: the stream says that it lives
        async with asyncio.timeout(KEEPALIVE_S):
            found.append(await queue.get())
    while not queue.empty():
        found.append(queue.get_nowait())
    return [change for change in found if change is not None]


def _event(change: Change) -> bytes:
    from orjson import Fragment, dumps

    value = None if change.body is None else Fragment(change.body)
    data = dumps({"key": change.key, "value": value})
    return b"event: " + change.event.encode() + b"\ndata: " + data + b"\n\n"


def _more(request: web.Request) -> dict[str, object]:
    return {"log": request.app[CONTEXT].appender.log_id}


def _any_key(request: web.Request) -> Grant:
    """A guard has the key it sends with, a dashboard one that reads: both may ask."""
    try:
        return require_read(request)
    except ApiError as exc:
        if exc.status != 403:
            raise
        return require_write(request)
