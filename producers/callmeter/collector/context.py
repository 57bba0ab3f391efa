"""What every route of the collector works with, and how errors are answered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import orjson
from aiohttp import web

from callmeter.clock import Clock, SystemClock
from callmeter.collector.config import CollectorConfig
from callmeter.collector.keys import Grant
from callmeter.collector.limits import MemoryGate, RateLimit
from callmeter.collector.metrics import IN_FLIGHT, REFUSED, Metrics
from callmeter.log.record import LogAppender

#: After a log that could not be reached: soon, for the SDK adds its own growing pauses.
RETRY_AFTER_LOG_S = 1


@dataclass(slots=True)
class Context:
    """One collector's parts. ``draining`` is set once it is told to stop; ``idle`` is set while no
    request is in hand.
    """

    appender: LogAppender
    config: CollectorConfig
    clock: Clock = field(default_factory=SystemClock)
    metrics: Metrics = field(default_factory=Metrics)
    draining: bool = False
    log_failed_s: float | None = None
    idle: asyncio.Event = field(default_factory=asyncio.Event)
    rate: RateLimit = field(init=False)
    memory: MemoryGate = field(init=False)

    def __post_init__(self) -> None:
        config = self.config
        self.rate = RateLimit(self.clock, config.rate_envelopes_per_s, config.burst_envelopes)
        self.memory = MemoryGate(config.max_bodies_bytes)
        self.idle.set()

    def enter(self) -> None:
        """A request came."""
        self.metrics.add(IN_FLIGHT, 1)
        self.idle.clear()

    def leave(self) -> None:
        """A request was answered."""
        self.metrics.add(IN_FLIGHT, -1)
        if not self.metrics.value(IN_FLIGHT):
            self.idle.set()


CONTEXT: web.AppKey[Context] = web.AppKey("callmeter_collector", Context)

#: Adds routes to the collector: budget status, experiments, the dashboard. Called once, before it
#: starts; finds what it needs in ``app[CONTEXT]``.
RouteInstaller = Callable[[web.Application], None]


class ApiError(Exception):
    """An answer other than 2xx, as JSON: ``{"error": "one line", …}``."""

    def __init__(
        self,
        status: int,
        reason: str,
        error: str,
        *,
        retry_after_s: float | None = None,
        details: Mapping[str, object] = MappingProxyType({}),
    ) -> None:
        super().__init__(error)
        self.status = status
        self.reason = reason
        self.body: Mapping[str, object] = {"error": error, "reason": reason, **details}
        self.retry_after_s = retry_after_s


def json_response(body: object, status: int = 200) -> web.Response:
    """``body`` as JSON."""
    return web.Response(body=orjson.dumps(body), status=status, content_type="application/json")


def error_response(context: Context, exc: ApiError) -> web.Response:
    """The answer to a refused request, counted by its reason."""
    context.metrics.add(REFUSED, reason=exc.reason)
    response = json_response(exc.body, exc.status)
    if exc.retry_after_s is not None:
        # Whole seconds (RFC 9110, section 10.2.3), never 0: that would mean at once.
        response.headers["Retry-After"] = str(max(1, round(exc.retry_after_s + 0.5)))
    if exc.status == 401:
        response.headers["WWW-Authenticate"] = 'Bearer realm="callmeter"'
    return response


def require_write(request: web.Request) -> Grant:
    """The caller's grant; ``ApiError`` 401 without a known key, 403 with one that only reads."""
    grant = _grant(request)
    if not grant.may_write:
        raise ApiError(403, "read_key", "this key reads only")
    return grant


def require_read(request: web.Request) -> Grant:
    """The caller's grant; ``ApiError`` 401 without a known key, 403 with one that only writes."""
    grant = _grant(request)
    if not grant.may_read:
        raise ApiError(403, "write_key", "this key writes only: reading needs a read key")
    return grant


def _grant(request: web.Request) -> Grant:
    keys = request.app[CONTEXT].config.keys
    grant = keys.find(request.headers.get("Authorization"))
    if grant is None:
        raise ApiError(401, "unauthorized", "the API key is missing or not known")
    return grant
