"""Connections: who may hold one, for how long, and TLS with certificates that may change."""

from __future__ import annotations

import asyncio
import logging
import ssl
from pathlib import Path
from typing import Any

import orjson
from aiohttp import web

from callmeter.collector.config import CollectorConfig
from callmeter.collector.context import Context
from callmeter.collector.keywatch import Signature, signature
from callmeter.collector.metrics import CONNECTIONS, DROPPED_CONNECTIONS
from callmeter.errors import ConfigError

log = logging.getLogger("callmeter.collector")

#: After the drain nothing is in hand but what would not finish.
_SHUTDOWN_S = 1.0


class Connection(web.RequestHandler):
    """A connection that must bring a whole request's headers in time, and says little of errors."""

    __slots__ = ("_context", "_counted", "_deadline", "_serving")

    def __init__(self, manager: web.Server, context: Context, **options: Any) -> None:
        super().__init__(manager, loop=asyncio.get_running_loop(), **options)
        self._context = context
        self._deadline: asyncio.TimerHandle | None = None
        self._serving = False
        self._counted = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        metrics = self._context.metrics
        super().connection_made(transport)
        if metrics.value(CONNECTIONS) >= self._context.config.max_connections:
            metrics.add(DROPPED_CONNECTIONS, reason="too_many")
            self.force_close()
            return
        metrics.add(CONNECTIONS, 1)
        self._counted = True
        self._expect_headers()

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._counted:
            self._counted = False
            self._context.metrics.add(CONNECTIONS, -1)
        self._forget_deadline()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        # What comes while nothing is in hand are the next request's first bytes.
        if not self._serving and self._deadline is None:
            self._expect_headers()

    def begin(self) -> None:
        """A request's headers are whole; what comes now is its body."""
        self._serving = True
        self._forget_deadline()

    def end(self) -> None:
        """It was answered."""
        self._serving = False

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """What no route has seen: bytes that are no HTTP, headers beyond their limits.

        Neither the answer nor the log quotes them: a header may be a key.
        """
        kind = "none" if exc is None else type(exc).__name__
        self._context.metrics.add(DROPPED_CONNECTIONS, reason="bad_http")
        log.warning("a request was refused before it was one: %s", kind)
        if request.writer.output_size > 0:
            raise ConnectionError("the answer has begun already")
        oversized = kind == "LineTooLong"
        body = {
            "error": "a header or the address is too long" if oversized else "this is no HTTP",
            "reason": "oversized_headers" if oversized else "bad_http",
        }
        if status >= 500:
            body = {"error": "the collector failed", "reason": "internal"}
        response = web.Response(
            body=orjson.dumps(body),
            status=431 if oversized else status,
            content_type="application/json",
        )
        response.headers["Server"] = "callmeter"
        response.force_close()
        return response

    def log_exception(self, *args: Any, **kw: Any) -> None:
        """What aiohttp says itself quotes what was sent."""
        exc = kw.get("exc_info")
        log.error("a connection failed: %s", type(exc).__name__ if exc else "unknown")

    def _expect_headers(self) -> None:
        self._deadline = asyncio.get_running_loop().call_later(
            self._context.config.header_timeout_s, self._headers_are_late
        )

    def _headers_are_late(self) -> None:
        self._deadline = None
        if not self._serving:
            self._context.metrics.add(DROPPED_CONNECTIONS, reason="slow_headers")
            self.force_close()

    def _forget_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


class _Connections:
    """What asyncio calls for each connection."""

    def __init__(self, manager: web.Server, context: Context) -> None:
        self._manager = manager
        self._context = context

    def __call__(self) -> Connection:
        config = self._context.config
        return Connection(
            self._manager,
            self._context,
            access_log=None,
            auto_decompress=False,  # routes bound what they unpack
            keepalive_timeout=config.keepalive_timeout_s,
            lingering_time=1.0,
            max_line_size=config.max_header_bytes,
            max_field_size=config.max_header_bytes,
        )


class Runner(web.AppRunner):
    """aiohttp's runner, with connections of ours."""

    __slots__ = ("_context",)

    def __init__(self, app: web.Application, context: Context) -> None:
        super().__init__(app, access_log=None, shutdown_timeout=_SHUTDOWN_S)
        self._context = context

    @property
    def server(self) -> Any:
        """What a site listens with."""
        server = super().server
        return None if server is None else _Connections(server, self._context)


class Certificate:
    """The TLS side of a listener; ``look`` takes a new certificate up when its files change."""

    def __init__(self, cert: Path, key: Path) -> None:
        self._paths = (cert, key)
        self.context = _tls_context(cert, key)
        self._seen = self._signatures()

    def look(self, *, anyway: bool = False) -> None:
        """New connections get what the files hold now; a pair that does not fit is left out."""
        now = self._signatures()
        if now == self._seen and not anyway:
            return
        self._seen = now
        try:
            _tls_context(*self._paths)  # tried apart: half of a new pair must not end the old one
            self.context.load_cert_chain(*self._paths)
        except (ConfigError, OSError) as exc:
            log.error(  # noqa: TRY400  # a trace would say nothing more
                "the certificate stays as it was: %s", exc
            )
            return
        log.warning("the certificate was read anew")

    def _signatures(self) -> tuple[Signature | None, ...]:
        return tuple(signature(path) for path in self._paths)


def certificate_of(config: CollectorConfig) -> Certificate | None:
    """The certificate that the settings name; None for plain HTTP. ``ConfigError``."""
    if config.tls_cert is None or config.tls_key is None:
        return None
    return Certificate(config.tls_cert, config.tls_key)


def _tls_context(cert: Path, key: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        # A password would be asked for on the terminal: nobody sits there.
        context.load_cert_chain(cert, key, password=lambda: "")
    except OSError as exc:  # ssl.SSLError is one
        raise ConfigError(
            f"TLS: {cert} and {key} are no certificate and its key (PEM, without a password)"
        ) from exc
    return context
