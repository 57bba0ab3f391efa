"""The collector as an aiohttp application, and the process around it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import Awaitable, Callable, Iterable
from urllib.parse import urlsplit

from aiohttp import web

from callmeter.clock import Clock, SystemClock
from callmeter.collector import health, ingest, trace
from callmeter.collector.config import CollectorConfig, is_loopback
from callmeter.collector.context import (
    CONTEXT,
    ApiError,
    Context,
    RouteInstaller,
    error_response,
)
from callmeter.collector.metrics import REQUESTS
from callmeter.errors import ConfigError
from callmeter.log.record import LogAppender

log = logging.getLogger("callmeter.collector")

#: What every collector has. Others come as ``extra_routes``.
ROUTES: tuple[RouteInstaller, ...] = (ingest.install, trace.install, health.install)
#: Bodies other than envelopes; those have their own limit.
_SMALL_BODY_BYTES = 2**20
#: After the drain nothing is in hand but what would not finish.
_SHUTDOWN_S = 1.0

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
        middlewares=[_observe, _answer_errors, _refuse_foreign_pages],
        client_max_size=_SMALL_BODY_BYTES,
    )
    app[CONTEXT] = Context(appender, config, clock or SystemClock())
    for install in (*ROUTES, *extra_routes):
        install(app)
    return app


def make_runner(app: web.Application) -> web.AppRunner:
    """The runner to serve the application with: it leaves compressed bodies to the routes, which
    bound them.
    """
    return web.AppRunner(app, auto_decompress=False, access_log=None, shutdown_timeout=_SHUTDOWN_S)


async def run_collector(
    appender: LogAppender,
    config: CollectorConfig,
    *,
    extra_routes: Iterable[RouteInstaller] = (),
    stop: asyncio.Event | None = None,
    on_started: Callable[[str], None] = lambda _: None,
) -> None:
    """Serve until ``stop`` is set, or SIGTERM or SIGINT, then drain and close the appender.

    ``on_started`` is told the URL (port 0 means any free one). Draining: no new connections,
    ``/readyz`` says 503, requests in hand are finished within ``drain_timeout_s``. ``ConfigError``
    if the address cannot be had.
    """
    stopping = asyncio.Event() if stop is None else stop
    runner = make_runner(app := make_app(appender, config, extra_routes=extra_routes))
    loop = asyncio.get_running_loop()
    signals = (signal.SIGTERM, signal.SIGINT) if stop is None else ()
    try:
        await runner.setup()
        site = web.TCPSite(runner, config.host, config.port)
        try:
            await site.start()
        except OSError as exc:
            raise ConfigError(
                f"cannot listen on {config.host}:{config.port}: {exc.strerror or exc}"
            ) from exc
        for signum in signals:
            loop.add_signal_handler(signum, stopping.set)
        on_started(_url(runner))
        await stopping.wait()
        await _drain(app[CONTEXT], site)
    finally:
        for signum in signals:
            loop.remove_signal_handler(signum)
        await runner.cleanup()
        await appender.close()


async def _drain(context: Context, site: web.TCPSite) -> None:
    """Stop listening and let the requests in hand finish, bodies still on their way included: the
    runner's own shutdown would no longer read those.
    """
    context.draining = True
    await site.stop()
    with contextlib.suppress(TimeoutError):  # whoever is cut off sends again
        async with asyncio.timeout(context.config.drain_timeout_s):
            await context.idle.wait()


def _url(runner: web.AppRunner) -> str:
    host, port = runner.addresses[0][:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


@web.middleware
async def _observe(request: web.Request, handler: _Handler) -> web.StreamResponse:
    context = request.app[CONTEXT]
    resource = request.match_info.route.resource
    route = "unknown" if resource is None else resource.canonical
    status = 500
    context.enter()
    try:
        response = await handler(request)
        status = response.status
    finally:
        context.leave()
        context.metrics.add(REQUESTS, route=route, status=str(status))
    if context.draining:
        response.force_close()
    return response


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
        log.exception("a request to %s failed", request.path)
        return error_response(context, ApiError(500, "internal", "the collector failed"))


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
