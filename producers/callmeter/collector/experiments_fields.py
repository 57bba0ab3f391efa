"""Reading requests about experiments: fields with limits, the project, ids that can be read."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import orjson
from aiohttp import web

from callmeter.collector.context import CONTEXT, ApiError
from callmeter.collector.keys import ANY, Grant
from callmeter.collector.reading import small_body


async def read_object(request: web.Request) -> Mapping[str, Any]:
    """The body as a JSON object; ``ApiError`` 400."""
    try:
        body = orjson.loads(await small_body(request, request.app[CONTEXT]))
    except orjson.JSONDecodeError:
        raise ApiError(400, "bad_json", "the body is not JSON") from None
    if not isinstance(body, dict):
        raise ApiError(400, "bad_value", "the body is not a JSON object")
    return body


def text_field(body: Mapping[str, Any], name: str, most: int, *, required: bool = False) -> str:
    """A text of at most so many characters, "" if it is not there; ``ApiError`` 400."""
    value = body.get(name)
    if value is None or value == "":
        if required:
            raise ApiError(400, "missing_field", f"{name!r} is missing")
        return ""
    if not isinstance(value, str) or len(value) > most:
        raise ApiError(400, "bad_value", f"{name!r} is not text of up to {most} characters")
    return value


def json_field(body: Mapping[str, Any], name: str, most_bytes: int) -> dict[str, Any]:
    """A JSON object, empty if it is not there; ``ApiError`` 400."""
    value = body.get(name) or {}
    if not isinstance(value, dict):
        raise ApiError(400, "bad_value", f"{name!r} is not a JSON object")
    size = len(orjson.dumps(value))
    if size > most_bytes:
        raise ApiError(400, "bad_value", f"{name!r} is {size} bytes, over {most_bytes}")
    return value


def project_of(request: web.Request, grant: Grant, asked: str) -> str:
    """The project asked for, else the one the key is bound to, else the collector's default.

    ``ApiError`` 403 if the key does not cover it.
    """
    if not asked and len(grant.projects) == 1 and ANY not in grant.projects:
        return next(iter(grant.projects))
    project = asked or request.app[CONTEXT].config.trace_project
    if not grant.covers(project):
        raise ApiError(403, "project", f"this key does not cover the project {project!r}")
    return project


def experiment_id(project: str, slug: str) -> str:
    """Project and slug as one word of letters, digits, - and _."""
    return "x" + base64.urlsafe_b64encode(f"{project}\n{slug}".encode()).decode().rstrip("=")


def split_id(text: str) -> tuple[str, str]:
    """The project and slug of an id; ``ApiError`` 404 for what is none."""
    digits = text[1:]
    try:
        plain = base64.b64decode(digits + "=" * (-len(digits) % 4), altchars=b"-_", validate=True)
        project, newline, slug = plain.decode().partition("\n")
    except ValueError:  # no base64, not ASCII or no UTF-8
        project = newline = slug = ""
    if not text.startswith("x") or not newline or not slug:
        raise ApiError(404, "unknown", "no such experiment")
    return project, slug
