"""Signing in and out: a form for the read key, a cookie that scripts and other sites cannot use."""

from __future__ import annotations

from aiohttp import web

from callmeter_sinks.dashboard import rendering
from callmeter_sinks.dashboard.access import COOKIE, SESSION_S, local_path
from callmeter_sinks.dashboard.context import DASHBOARD

_MOST_KEY = 512
_FORM = "application/x-www-form-urlencoded"


def form(request: web.Request, status: int, problem: str = "", to: str = "") -> web.Response:
    """The form, in place of whatever was asked for."""
    wanted = to or (request.path_qs if request.method == "GET" else "/")
    context = {"to": local_path(wanted), "problem": problem, "path": request.path}
    response = rendering.html("sign-in.html", context, status)
    if status == 401:
        response.headers["WWW-Authenticate"] = 'Bearer realm="callmeter"'
    return response


async def sign_in(request: web.Request) -> web.StreamResponse:
    """``key`` and ``to`` of the form; 401 with the form again if the key may not read."""
    try:
        said = await request.post() if request.content_type == _FORM else {}
    except (LookupError, ValueError):  # a character set that is none, or not the body's
        said = {}
    key, to = said.get("key"), said.get("to")
    wanted = local_path(to) if isinstance(to, str) else "/"
    known = isinstance(key, str) and len(key) <= _MOST_KEY
    cookie = request.app[DASHBOARD].sessions.begin(str(key).strip()) if known else None
    if cookie is None:
        return form(request, 401, "This key is not known, or it may not read.", wanted)
    response = web.Response(status=303, headers={"Location": wanted, **rendering.HEADERS})
    response.set_cookie(
        COOKIE, cookie, max_age=SESSION_S, path="/", httponly=True, samesite="Strict",
        secure=request.secure,
    )  # fmt: skip
    return response


async def sign_out(request: web.Request) -> web.StreamResponse:
    """End the session."""
    request.app[DASHBOARD].sessions.end(request)
    response = web.Response(status=303, headers={"Location": "/", **rendering.HEADERS})
    response.del_cookie(COOKIE, path="/", httponly=True, samesite="Strict")
    return response
