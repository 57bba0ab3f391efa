"""``POST /trace``: the Monitor hook's JSON, one event a request.

The hook never re-sends, but a proxy in between may: an event counts once per (call_id, event)
within ten minutes and one collector process.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator

import orjson
from aiohttp import web

from callmeter.clock import Clock
from callmeter.collector.context import CONTEXT, ApiError, Context, json_response, require_write
from callmeter.collector.keys import ANY, Grant
from callmeter.collector.metrics import TRACES
from callmeter.collector.own_sources import OwnSources
from callmeter.collector.reading import small_body
from callmeter.collector.trace_events import TraceError, TraceEvent, trace_event

PATH = "/trace"
REMEMBER_S = 600.0
MAX_REMEMBERED = 500_000

_Key = tuple[str, tuple[str, str]]


class Traces:
    """The sources of all projects, and what was seen lately."""

    def __init__(self, context: Context) -> None:
        self._sources = OwnSources(context)
        self._seen = Recent(context.clock)

    async def accept(self, project: str, event: TraceEvent) -> bool:
        """Return once the log has the event; False if it had come before. ``ApiError`` 503 if the
        log does not have it in time: it is then still on its way and will count once.
        """
        key = (project, event.key)
        done = self._seen.find(key)
        fresh = done is None
        if done is None:
            done = self._sources.of(project).add(event)
            self._seen.remember(key, done)
        await self._sources.stored(done)
        return fresh

    async def close(self) -> None:
        """Close every source cleanly, all within the drain's time."""
        await self._sources.close()


class Recent:
    """Keys of the last ten minutes, oldest first; bounded."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._entries: OrderedDict[_Key, tuple[float, asyncio.Future[None]]] = OrderedDict()

    def find(self, key: _Key) -> asyncio.Future[None] | None:
        """When the event will be, or was, in the log; None for one that is new."""
        self._forget()
        entry = self._entries.get(key)
        return None if entry is None else entry[1]

    def remember(self, key: _Key, done: asyncio.Future[None]) -> None:
        """From now for ten minutes."""
        self._entries[key] = (self._clock.monotonic_s() + REMEMBER_S, done)

    def _forget(self) -> None:
        now_s = self._clock.monotonic_s()
        while self._entries:
            until_s, _ = next(iter(self._entries.values()))
            if until_s > now_s and len(self._entries) <= MAX_REMEMBERED:
                return
            self._entries.popitem(last=False)


TRACES_KEY: web.AppKey[Traces] = web.AppKey("callmeter_traces", Traces)


def install(app: web.Application) -> None:
    """Add the route, and close its sources with the application."""
    app.router.add_post(PATH, post_trace)
    app.cleanup_ctx.append(_lifetime)


async def _lifetime(app: web.Application) -> AsyncIterator[None]:
    app[TRACES_KEY] = Traces(app[CONTEXT])
    yield
    await app[TRACES_KEY].close()


async def post_trace(request: web.Request) -> web.Response:
    """200 ``{"accepted": true}`` once the log has it; false for a repetition."""
    context = request.app[CONTEXT]
    grant = require_write(request)
    try:
        event = trace_event(orjson.loads(await small_body(request, context)))
    except orjson.JSONDecodeError:
        raise ApiError(400, "bad_json", "line 1: the body is not JSON") from None
    except TraceError as exc:
        raise ApiError(400, "bad_value", f"line 1: {exc}") from None
    context.admit(grant, 1, 0)
    fresh = await request.app[TRACES_KEY].accept(_project(grant, context), event)
    context.metrics.add(TRACES, result="accepted" if fresh else "duplicate")
    return json_response({"accepted": fresh})


def _project(grant: Grant, context: Context) -> str:
    """The hook names no project: its key does, where it covers exactly one."""
    if len(grant.projects) == 1 and ANY not in grant.projects:
        return next(iter(grant.projects))
    project = context.config.trace_project
    if not grant.covers(project):
        raise ApiError(
            403, "project", f"this key covers several projects, and not {project!r}: use one of one"
        )
    return project
