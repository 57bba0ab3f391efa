"""The module call that is under way in this task, and who tells of it."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING

from callmeter.errors import ConfigError
from callmeter.sdk import api
from callmeter.sdk.call import NO_CALL
from callmeter.transports.url import HttpEndpoint, http_endpoint

if TYPE_CHECKING:
    from callmeter.compat.synalinks.running import Run

RUN: ContextVar[Run | None] = ContextVar("callmeter_synalinks_run", default=None)


def told_by_sdk(base: str) -> bool:
    """Whether the call under way reaches the collector at ``base`` as a record of the SDK's own.

    The Monitor hook then stays silent, or the collector would count every module twice.
    """
    run, client = RUN.get(), api.default_client()
    if run is None or run.call is NO_CALL or client is None or client.url is None:
        return False
    ours, its = _place(client.url), _place(base)
    return ours is not None and ours == its


def _place(url: str) -> tuple[str, int, str] | None:
    if not url.lower().startswith(("http://", "https://")):
        return None
    try:
        endpoint: HttpEndpoint = http_endpoint(url)
    except ConfigError:
        return None
    host = "localhost" if endpoint.loopback else endpoint.host.lower()
    return host, endpoint.port, endpoint.base
