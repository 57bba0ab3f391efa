"""The collector as an aiohttp application, and the process around it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import time
from collections.abc import Awaitable, Callable, Iterable
from urllib.parse import urlsplit

from aiohttp import web

from callmeter.clock import Clock, SystemClock
from callmeter.collector import health, ingest, keywatch, otlp, trace
from callmeter.collector.config import CollectorConfig, is_loopback
from callmeter.collector.context import (
    CONTEXT,
    NOTES,
    ApiError,
    Context,
    Notes,
    RouteInstaller,
    error_response,
)
from callmeter.collector.keywatch import KEY_WATCH
from callmeter.collector.listening import Certificate, Connection, Runner, certificate_of
from callmeter.collector.logs import REQUEST_ID_HEADER, log_request, request_id
from callmeter.collector.metrics import REQUESTS
from callmeter.collector.reading import SMALL_BODY_BYTES
from callmeter.errors import ConfigError
from callmeter.log.record import LogAppender

log = logging.getLogger("callmeter.collector")

#: What every collector has. Others come as ``extra_routes``.
ROUTES: tuple[RouteInstaller, ...] = (
    ingest.install,
    trace.install,
    otlp.install,
    health.install,
    keywatch.install,
)
#: Answered until the very end of a drain: whoever looks must see that it stops.
_ALWAYS = frozenset({"/healthz", "/readyz", "/metrics"})
_RETRY_AFTER_DRAIN_S = 2
_CERTIFICATE_POLL_S = 1.0

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def make_app(
    appender: LogAppender,
    config: CollectorConfig,
    *,
    extra_routes: Iterable[RouteInstaller] = (),
    clock: Clock | None = None,
) -> web.Application:
    """The collector over a log. The appender is the caller's: the application does not close it."""
    app = web.Application(
        middlewares=[_observe, _answer_errors, _refuse_while_stopping, _refuse_foreign_pages],
        client_max_size=SMALL_BODY_BYTES,
    )
    app[CONTEXT] = Context(appender, config, clock or SystemClock())
    app.on_response_prepare.append(_mark)
    for install in (*ROUTES, *extra_routes):
        install(app)
    return app


def make_runner(app: web.Application) -> web.AppRunner:
    """The runner to serve the application with: it bounds connections, and leaves compressed
    bodies to the routes, which bound them.
    """
    return Runner(app, app[CONTEXT])


async def run_collector(
    appender: LogAppender,
    config: CollectorConfig,
    *,
    extra_routes: Iterable[RouteInstaller] = (),
    stop: asyncio.Event | None = None,
    on_started: Callable[[str], None] = lambda _: None,
) -> None:
    """Serve until ``stop`` is set, or SIGTERM or SIGINT, then drain and close the appender.

    ``on_started`` is told the URL (port 0 means any free one). Draining: ``/readyz`` says 503, what
    is new is refused with 503, requests in hand are finished within ``drain_timeout_s``, then it
    stops listening. SIGHUP reads keys and certificate anew. ``ConfigError`` if the address cannot
    be had or the certificate is none.
    """
    stopping = asyncio.Event() if stop is None else stop
    certificate = certificate_of(config)
    runner = make_runner(app := make_app(appender, config, extra_routes=extra_routes))
    loop = asyncio.get_running_loop()
    watching = None if certificate is None else asyncio.create_task(_watch(certificate))
    signals: dict[int, Callable[[], None]] = {}
    if stop is None:
        signals = {
            signal.SIGTERM: stopping.set,
            signal.SIGINT: stopping.set,
            signal.SIGHUP: lambda: _reload(app, certificate),
        }
    try:
        await runner.setup()
        tls = None if certificate is None else certificate.context
        site = web.TCPSite(runner, config.host, config.port, ssl_context=tls)
        try:
            await site.start()
        except OSError as exc:
            raise ConfigError(
                f"cannot listen on {config.host}:{config.port}: {exc.strerror or exc}"
            ) from exc
        for signum, act in signals.items():
            loop.add_signal_handler(signum, act)
        on_started(_url(runner, "http" if tls is None else "https"))
        await stopping.wait()
        await _drain(app[CONTEXT], site)
    finally:
        for signum in signals:
            loop.remove_signal_handler(signum)
        if watching is not None:
            watching.cancel()
        await runner.cleanup()
        await appender.close()


async def _drain(context: Context, site: web.TCPSite) -> None:
    """Unready first, then the requests in hand, bodies still on their way included (the runner's
    own shutdown would no longer read those), and the listener last: whoever comes while the word
    has not spread is told to come back, and not left standing.
    """
    context.drain()
    await asyncio.sleep(context.config.drain_grace_s)
    with contextlib.suppress(TimeoutError):  # whoever is cut off sends again
        async with asyncio.timeout(context.config.drain_timeout_s):
            await context.idle.wait()
    await site.stop()


def _reload(app: web.Application, certificate: Certificate | None) -> None:
    watch = app.get(KEY_WATCH)
    if watch is not None:
        watch.look()
    if certificate is not None:
        certificate.look(anyway=True)


async def _watch(certificate: Certificate) -> None:
    while True:
        await asyncio.sleep(_CERTIFICATE_POLL_S)
        certificate.look()


def _url(runner: web.AppRunner, scheme: str) -> str:
    host, port = runner.addresses[0][:2]
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


@web.middleware
async def _observe(request: web.Request, handler: _Handler) -> web.StreamResponse:
    context = request.app[CONTEXT]
    resource = request.match_info.route.resource
    route = "unknown" if resource is None else resource.canonical
    notes = Notes(request_id(request))
    NOTES.set(notes)
    connection = request.protocol if isinstance(request.protocol, Connection) else None
    if connection is not None:
        connection.begin()
    started_s = time.perf_counter()
    status = 500
    context.enter()
    try:
        response = await handler(request)
        status = response.status
    finally:
        if connection is not None:
            connection.end()
        context.leave()
        context.metrics.add(REQUESTS, route=route, status=str(status))
        log_request(request, notes, route, status, started_s)
    if context.draining:
        response.force_close()
    return response


async def _mark(request: web.Request, response: web.StreamResponse) -> None:
    """What every answer carries, streams too."""
    notes = NOTES.get()
    response.headers[REQUEST_ID_HEADER] = request_id(request) if notes is None else notes.request_id
    response.headers["Server"] = "callmeter"
    response.headers["X-Content-Type-Options"] = "nosniff"


@web.middleware
async def _answer_errors(request: web.Request, handler: _Handler) -> web.StreamResponse:
    context = request.app[CONTEXT]
    try:
        return await handler(request)
    except ApiError as exc:
        return error_response(context, exc)
    except web.HTTPException as exc:
        if exc.status < 400:
            raise
        return error_response(context, ApiError(exc.status, "http", exc.reason))
    except (ConnectionError, asyncio.CancelledError):
        raise
    except Exception:
        resource = request.match_info.route.resource
        route = "unknown" if resource is None else resource.canonical
        notes = NOTES.get()
        told = "" if notes is None else notes.request_id
        log.exception("a request to %s failed", route, extra={"request_id": told})
        return error_response(context, ApiError(500, "internal", "the collector failed"))


@web.middleware
async def _refuse_while_stopping(request: web.Request, handler: _Handler) -> web.StreamResponse:
    if request.app[CONTEXT].draining and request.path not in _ALWAYS:
        raise ApiError(503, "stopping", "the collector stops", retry_after_s=_RETRY_AFTER_DRAIN_S)
    return await handler(request)


@web.middleware
async def _refuse_foreign_pages(request: web.Request, handler: _Handler) -> web.StreamResponse:
    """Without keys the collector trusts this machine, but not the pages its browsers have open.

    A page elsewhere can post here (its ``Origin`` tells) or have its own name resolve to here (the
    ``Host`` tells): both are refused. With keys neither gets it anywhere.
    """
    if not request.app[CONTEXT].config.keys:
        host = _hostname(f"//{request.host}")
        origin = request.headers.get("Origin")
        if not is_loopback(host) or (origin is not None and not is_loopback(_hostname(origin))):
            raise ApiError(403, "foreign", "without API keys only this machine is served")
    return await handler(request)


def _hostname(url: str) -> str:
    with contextlib.suppress(ValueError):  # no host can be read out of it: none that is ours
        return urlsplit(url).hostname or ""
    return ""
