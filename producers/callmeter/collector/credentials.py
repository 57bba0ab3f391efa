"""``POST /v1/credentials/refresh``: short-lived credentials for writing, in exchange for a key.

So the key itself travels rarely. A credential writes to its key's projects, reads nothing, and
makes no other credential. It is known to the collector that gave it: another one answers 401, and
the producer asks there. A collector without keys gives none: it takes whatever it is sent.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from callmeter.collector.context import CONTEXT, ApiError, Context, json_response, require_write

PATH = "/v1/credentials/refresh"
TTL_S = 900.0
MAX_CREDENTIALS = 10_000


class Credentials:
    """What was given out, oldest first; bounded. The key ring holds what lives."""

    def __init__(self, context: Context, ttl_s: float) -> None:
        self._context = context
        self._ttl_s = ttl_s
        self._until: OrderedDict[bytes, float] = OrderedDict()

    def mint(self, authorization: str | None) -> str | None:
        """A new credential of the key in a header; None without keys, or from a credential."""
        self.forget_expired(MAX_CREDENTIALS - 1)
        token = f"cred_{secrets.token_urlsafe(24)}"
        digest = self._context.config.keys.lend(authorization, token)
        if digest is None:
            return None
        self._until[digest] = self._context.clock.monotonic_s() + self._ttl_s
        return token

    def forget_expired(self, most: int = MAX_CREDENTIALS) -> None:
        """Before every request: an expired credential is a key that is not known."""
        now_s = self._context.clock.monotonic_s()
        while self._until:
            digest, until_s = next(iter(self._until.items()))
            if until_s > now_s and len(self._until) <= most:
                return
            del self._until[digest]
            self._context.config.keys.take_back(digest)

    @property
    def ttl_s(self) -> float:
        return self._ttl_s


CREDENTIALS: web.AppKey[Credentials] = web.AppKey("callmeter_credentials", Credentials)


def install(app: web.Application, ttl_s: float = TTL_S) -> None:
    """Add the route, and the look at every request that lets credentials expire."""
    app[CREDENTIALS] = Credentials(app[CONTEXT], ttl_s)
    app.middlewares.append(_expire)
    app.router.add_post(PATH, post_refresh)


@web.middleware
async def _expire(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    request.app[CREDENTIALS].forget_expired()
    return await handler(request)


def minted(request: web.Request) -> dict[str, Any]:
    """The part of an answer that carries a credential; null where none is needed."""
    credentials = request.app[CREDENTIALS]
    token = credentials.mint(request.headers.get("Authorization"))
    expires_in_s = None if token is None else credentials.ttl_s
    return {"credential": token, "expires_in_s": expires_in_s}


async def post_refresh(request: web.Request) -> web.Response:
    """A fresh credential for a key; 403 for one that is itself a credential."""
    require_write(request)
    answer = minted(request)
    if answer["credential"] is None and request.app[CONTEXT].config.keys:
        raise ApiError(403, "credential", "a credential makes no other: send the API key")
    return json_response(answer)
