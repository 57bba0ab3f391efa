"""``/healthz``, ``/readyz`` and ``/metrics``."""

from __future__ import annotations

from aiohttp import web

from callmeter.collector.context import CONTEXT, json_response, require_read
from callmeter.collector.metrics import CONTENT_TYPE

#: A failed append makes the collector unready this long; then it is tried again.
UNREADY_S = 5.0


def install(app: web.Application) -> None:
    """Add the routes."""
    app.router.add_get("/healthz", healthz)
    app.router.add_get("/readyz", readyz)
    app.router.add_get("/metrics", metrics)


async def healthz(_request: web.Request) -> web.Response:
    """The process lives."""
    return json_response({"status": "ok"})


async def readyz(request: web.Request) -> web.Response:
    """It can take envelopes: not stopping, and the log answered when last asked."""
    context = request.app[CONTEXT]
    failed_s = context.log_failed_s
    if context.draining:
        return json_response({"status": "stopping"}, 503)
    if failed_s is not None and context.clock.monotonic_s() - failed_s < UNREADY_S:
        return json_response({"status": "the log is not reachable"}, 503)
    return json_response({"status": "ready", "log": context.appender.log_id})


async def metrics(request: web.Request) -> web.Response:
    """Prometheus' text. Open as long as no read keys are configured; it names no project."""
    context = request.app[CONTEXT]
    if context.config.keys.has_read_keys:
        require_read(request)
    return web.Response(text=context.metrics.text(), headers={"Content-Type": CONTENT_TYPE})
