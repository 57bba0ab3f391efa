"""What every route of the collector works with, and how errors are answered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextvars import ContextVar
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
    rate_bytes: RateLimit = field(init=False)
    memory: MemoryGate = field(init=False)
    #: Called once when the collector is told to stop: streams end here, they never end else.
    on_drain: list[Callable[[], None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        config = self.config
        self.rate = RateLimit(self.clock, config.rate_envelopes_per_s, config.burst_envelopes)
        self.rate_bytes = RateLimit(self.clock, config.rate_bytes_per_s, None)
        self.memory = MemoryGate(config.max_bodies_bytes)
        self.idle.set()

    def admit(self, grant: Grant, envelopes: int, size: int) -> None:
        """Take so many envelopes and bytes of a key's rates; ``ApiError`` 429 if it is over one.

        0 and 0 only ask, before a body is read.
        """
        limits = grant.limits
        wait_s = max(
            self.rate.wait_s(grant.name, 0, limits.envelopes_per_s),
            self.rate_bytes.wait_s(grant.name, 0, limits.bytes_per_s),
        )
        if wait_s > 0:
            raise ApiError(429, "rate", "over this key's rate", retry_after_s=wait_s)
        if envelopes or size:
            self.rate.wait_s(grant.name, envelopes, limits.envelopes_per_s)
            self.rate_bytes.wait_s(grant.name, size, limits.bytes_per_s)

    def drain(self) -> None:
        """Refuse what is new from now on."""
        self.draining = True
        for act in self.on_drain:
            act()

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


@dataclass(slots=True)
class Notes:
    """What is known of the request in hand, for its answer and its line in the log: its id, the
    name of the key that let it in, and the reason it was refused for.
    """

    request_id: str
    key: str = ""
    reason: str = ""


#: Each request has a task of its own, and so its own notes.
NOTES: ContextVar[Notes | None] = ContextVar("callmeter_request", default=None)


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
    notes = NOTES.get()
    if notes is not None:
        notes.reason = exc.reason
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
    context = request.app[CONTEXT]
    header = request.headers.get("Authorization")
    grant = context.config.keys.find(header, context.clock.now_us())
    if grant is None:
        raise ApiError(401, "unauthorized", "the API key is missing or not known")
    notes = NOTES.get()
    if notes is not None:
        notes.key = grant.name
    return grant
