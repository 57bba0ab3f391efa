"""Serves an application on an address until it is told to stop."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable

from aiohttp import web

from callmeter.errors import ConfigError
from callmeter_sinks.dashboard.app import is_loopback
from callmeter_sinks.dashboard.context import DASHBOARD

_SHUTDOWN_S = 2.0


async def serve(
    app: web.Application,
    host: str,
    port: int,
    *,
    stop: asyncio.Event,
    tls: ssl.SSLContext | None = None,
    on_started: Callable[[str], None] = lambda _: None,
) -> None:
    """Serve until ``stop`` is set; ``on_started`` is told the URL (port 0 takes a free one).

    HTTPS with a ``tls`` context, whose certificate its owner may change.

    ``ConfigError`` for an address beyond this machine while no key is asked for, or one that cannot
    be had.
    """
    bracketed = f"[{host}]" if ":" in host else host
    if not app[DASHBOARD].sessions.needed and not is_loopback(f"//{bracketed}"):
        raise ConfigError(
            f"the dashboard does not listen on {host} without read keys: give --read-key or "
            "--keys-file, or listen on 127.0.0.1"
        )
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=_SHUTDOWN_S)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port, ssl_context=tls).start()
        except OSError as exc:
            raise ConfigError(f"cannot listen on {host}:{port}: {exc.strerror or exc}") from exc
        scheme = "http" if tls is None else "https"
        on_started(f"{scheme}://{bracketed}:{runner.addresses[0][1]}")
        await stop.wait()
    finally:
        await runner.cleanup()
