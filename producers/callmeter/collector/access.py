"""Whether a caller may read a project: for what is served beside the collector's own routes."""

from __future__ import annotations

from aiohttp import web

from callmeter.collector.context import CONTEXT
from callmeter.collector.keys import ANY, Grant, KeyRing


def reading_grant(keys: KeyRing, authorization: str | None) -> Grant | None:
    """The grant of an ``Authorization`` header that may read; None if it names none.

    Asked at each request, it follows the key file: a revoked key is refused within seconds. With
    no keys configured everybody reads all.
    """
    grant = keys.find(authorization)
    return grant if grant is not None and grant.may_read else None


def readable_projects(keys: KeyRing, authorization: str | None) -> frozenset[str] | None:
    """The projects that a header's key may read: ``{"*"}`` for all, None for no key that reads."""
    grant = reading_grant(keys, authorization)
    return None if grant is None else grant.projects


def may_read(request: web.Request, project: str | None) -> bool:
    """Whether a request to the collector's application carries a read key for a project.

    ``project`` None asks for all projects, what only a key for every project may read.
    """
    keys = request.app[CONTEXT].config.keys
    grant = reading_grant(keys, request.headers.get("Authorization"))
    return grant is not None and grant.covers(ANY if project is None else project)
