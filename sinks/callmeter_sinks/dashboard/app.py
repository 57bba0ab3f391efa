"""The dashboard's routes, and the server that has nothing else."""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from urllib.parse import urlsplit

from aiohttp import web

from callmeter.errors import CallmeterError, UnreachableError, UsageError
from callmeter_sinks.clickhouse.store import Store
from callmeter_sinks.dashboard import rendering, signing, timeline
from callmeter_sinks.dashboard.access import OPEN, Access, Reader, Sessions
from callmeter_sinks.dashboard.changes import Changes
from callmeter_sinks.dashboard.context import DASHBOARD, Asked, Dashboard, Page, PageMaker
from callmeter_sinks.dashboard.lag import EndsOf
from callmeter_sinks.dashboard.pages import (
    alert,
    budgets,
    calls,
    experiments,
    health,
    overview,
    trace,
)
from callmeter_sinks.dashboard.reading import Reading
from callmeter_sinks.dashboard.verifying import Verifying
from callmeter_sinks.dashboard.view import View

logger = logging.getLogger("callmeter.dashboard")

#: Streams and pages that look at nearly the same time share one look at the store.
_LOOK_S = 0.1
#: Which projects there are changes seldom, and is only offered as a choice.
_PROJECTS_S = 10.0

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

#: Path to page. A panel is a part of a page that reads single calls: it comes after the page.
PAGES: dict[str, PageMaker] = {
    "/": overview.page,
    "/panels/durations": overview.durations,
    "/panels/services": overview.services,
    "/panels/errors": overview.errors,
    "/panels/users": overview.users,
    "/budgets": budgets.page,
    "/calls": calls.page,
    "/trace/{trace_id}": trace.page,
    "/alert/{alert_id}/trace": alert.to_trace,
    "/experiments": experiments.page,
    "/data-health": health.page,
}


def dashboard_routes(
    store: Store,
    *,
    access: Access = OPEN,
    ends: EndsOf | None = None,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
    keep_s: float = 1.0,
) -> Callable[[web.Application], None]:
    """Adds the dashboard to an application, at ``/``; the store stays its owner's.

    ``access`` says who may look. If it lets in whoever has no key, only requests that name this
    machine in ``Host`` are served: a page elsewhere cannot read through a browser here. ``ends``
    tells how far the log is, for whoever has it. Answers of the store are given again for
    ``keep_s``.
    """

    def install(app: web.Application) -> None:
        reading = Reading(store, keep_s=keep_s)
        newest = ""

        async def look() -> str:
            nonlocal newest
            seen = await reading.ask("look", lambda queries: _look(queries.store), keep_s=_LOOK_S)
            if seen != newest:
                newest = seen
                reading.forget()
            return seen

        changes = Changes(look)
        verifying = Verifying(reading, now, changes.changed)
        sessions = Sessions(access)
        app[DASHBOARD] = Dashboard(reading, sessions, changes, verifying, ends, now, look)

        async def run(_app: web.Application) -> AsyncIterator[None]:
            yield
            await verifying.stop()
            await changes.close()
            reading.close()

        async def shut_down(_app: web.Application) -> None:
            end_streams(_app)

        app.cleanup_ctx.append(run)
        app.on_shutdown.append(shut_down)
        for path, make in PAGES.items():
            app.router.add_get(path, _page(make))
        app.router.add_get("/stream", _guarded(_stream))
        app.router.add_post("/data-health/verify", _guarded(_verify))
        app.router.add_post("/sign-in", _local(signing.sign_in))
        app.router.add_post("/sign-out", _local(signing.sign_out))
        app.router.add_get("/assets/{version}/{name:.+}", rendering.asset)

    return install


def end_streams(app: web.Application) -> None:
    """End the live pages' streams: the server is about to stop and waits for what is in hand."""
    app[DASHBOARD].changes.end()


def dashboard_app(store: Store, *, access: Access = OPEN, keep_s: float = 1.0) -> web.Application:
    """The dashboard as an application of its own; ``/healthz`` says that it lives."""
    app = web.Application(client_max_size=2**16)
    app.router.add_get("/healthz", _healthz)
    dashboard_routes(store, access=access, keep_s=keep_s)(app)
    return app


def _look(store: Store) -> str:
    """Row counts of what pages show: the engine knows them without reading a row."""
    tables = ("calls", "calls_open", "costs", "metrics", "annotations", "experiments",
              "dead_letters", "envelopes", "alerts", "budgets", "budget_status")  # fmt: skip
    # Only names that stand above are put into the statement.
    counts = " UNION ALL ".join(
        f"SELECT {place} AS place, count() AS n FROM {table}"  # noqa: S608
        for place, table in enumerate(tables)
    )
    return "-".join(str(n) for _, n in sorted(store.query(counts).rows))


def _page(make: PageMaker) -> _Handler:
    async def answer(request: web.Request, reader: Reader) -> web.StreamResponse:
        dashboard = request.app[DASHBOARD]
        now = dashboard.now()
        try:
            view = View.of(request.query, reader, now)
            with dashboard.reading.turns.page():
                # First: what comes in while the page is made is newer than what it has seen.
                seen = await dashboard.look()
                made = await make(Asked(dashboard, request, reader, view, now))
                if not isinstance(made, Page):
                    return made
                common = await _common(dashboard, request, reader, view)
        except UsageError as exc:
            return _problem(request, 400, "That cannot be shown", str(exc))
        except UnreachableError as exc:
            logger.warning("%s: %s", request.path, exc)
            return _problem(request, 503, "The store does not answer", str(exc))
        except CallmeterError as exc:
            logger.warning("%s: %s", request.path, exc)
            return _problem(request, 502, "The store refused the question", str(exc))
        told = {**common, "seen": seen, **made.context}
        return rendering.html(made.template, told, made.status)

    return _guarded(answer)


def _guarded(
    handler: Callable[[web.Request, Reader], Awaitable[web.StreamResponse]],
) -> _Handler:
    async def answer(request: web.Request) -> web.StreamResponse:
        reader = request.app[DASHBOARD].sessions.reader(request)
        if reader is None:
            return signing.form(request, 401)
        return await handler(request, reader)

    return _local(answer)


def _local(handler: _Handler) -> _Handler:
    """Where no key is asked for, only this machine is served, by a name that is its own."""

    async def answer(request: web.Request) -> web.StreamResponse:
        if not request.app[DASHBOARD].sessions.needed and not (
            is_loopback(f"//{request.host}") and is_loopback(request.headers.get("Origin"))
        ):
            return _problem(request, 403, "Refused", "without keys only this machine is served")
        return await handler(request)

    return answer


def is_loopback(url: str | None) -> bool:
    """Whether a URL names this machine; None names nobody else."""
    if url is None:
        return True
    try:
        host = urlsplit(url).hostname or ""
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


async def _healthz(_request: web.Request) -> web.Response:
    return web.json_response({"status": "ok"})


async def _stream(request: web.Request, _reader: Reader) -> web.StreamResponse:
    return await request.app[DASHBOARD].changes.stream(request)


async def _verify(request: web.Request, reader: Reader) -> web.StreamResponse:
    """Run verify now; a form of the page asks. It reads all projects, so its caller must too."""
    if reader.projects is not None:
        return _problem(request, 403, "Refused", "this key reads some projects, verify reads all")
    request.app[DASHBOARD].verifying.start()
    return web.Response(status=303, headers={"Location": "/data-health", **rendering.HEADERS})


async def _common(
    dashboard: Dashboard, request: web.Request, reader: Reader, view: View
) -> dict[str, object]:
    return {
        "view": view,
        "path": request.path,
        "now": dashboard.now(),
        "projects": await projects_of(dashboard, reader),
        "may_sign_out": dashboard.sessions.needed,
        "all_projects": reader.projects is None,
    }


async def projects_of(dashboard: Dashboard, reader: Reader) -> list[str]:
    """The projects that a reader may choose from."""
    if reader.projects is not None:
        return sorted(reader.projects)
    return await dashboard.reading.ask(
        "projects", lambda queries: timeline.projects(queries.store), lasting_s=_PROJECTS_S
    )


def _problem(request: web.Request, status: int, title: str, detail: str) -> web.Response:
    context = {"title": title, "detail": detail, "status": status, "path": request.path}
    return rendering.html("problem.html", context, status)
