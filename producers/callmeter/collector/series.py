"""``GET /v1/experiments/{id}/series`` and ``GET /v1/catalog``: what experiments have recorded."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from aiohttp import web

from callmeter.collector.context import ApiError, json_response, require_read
from callmeter.collector.experiments_fields import project_of, split_id
from callmeter.collector.experiments_reader import READER, Reader, ask, reader_of

PATH = "/v1/experiments/{id}/series"
CATALOG_PATH = "/v1/catalog"
DEFAULT_LIMIT = 100_000


def install(app: web.Application, reader: Reader | None) -> None:
    """Add the routes."""
    if reader is not None:
        app[READER] = reader
    app.router.add_get(PATH, get_series)
    app.router.add_get(CATALOG_PATH, get_catalog)


async def get_series(request: web.Request) -> web.Response:
    """Points of ``name`` as three lists of equal length; timestamps in milliseconds.

    ``metadata`` (repeated) is ``key`` or ``key=value``; ``order_by`` step or timestamp;
    ``direction`` asc or desc; ``limit``.
    """
    grant = require_read(request)
    project, slug = split_id(request.match_info["id"])
    if not grant.covers(project):
        raise ApiError(403, "project", f"this key does not cover the project {project!r}")
    query = request.query
    name = query.get("name", "")
    if not name:
        raise ApiError(400, "missing_field", "'name' is missing")
    order = _order(query.get("order_by", "step"))
    direction = query.get("direction", "asc")
    if direction not in ("asc", "desc"):
        raise ApiError(400, "bad_value", "'direction' is asc or desc")
    limit = query.get("limit", str(DEFAULT_LIMIT))
    if not limit.isascii() or not limit.isdigit():
        raise ApiError(400, "bad_value", "'limit' is not a number")
    reader = reader_of(request)
    found = await ask(
        lambda: reader.series(
            name,
            experiment=slug,
            project=project,
            labels=query.getall("metadata", []),
            order=order,
            descending=direction == "desc",
            limit=int(limit),
        )
    )
    return json_response(
        {
            "name": name,
            "steps": list(found.steps),
            "timestamps": [_ms(moment) for moment in found.timestamps],
            "values": list(found.values),
        }
    )


async def get_catalog(request: web.Request) -> web.Response:
    """Metric names and metadata keys of the named experiments, up to 64; else of the newest."""
    project = project_of(request, require_read(request), request.query.get("project", ""))
    slugs = request.query.getall("experiment", [])
    reader = reader_of(request)
    entries = await ask(lambda: reader.catalog(project=project, experiments=slugs))
    return json_response(
        {
            "experiments": [
                {
                    "experiment": entry.experiment,
                    "metrics": list(entry.metrics),
                    "metadata_keys": list(entry.label_keys),
                    "meta_keys": list(entry.metadata_keys),
                }
                for entry in entries
            ]
        }
    )


def _order(text: str) -> Literal["step", "timestamp"]:
    if text == "step":
        return "step"
    if text == "timestamp":
        return "timestamp"
    raise ApiError(400, "bad_value", "'order_by' is step or timestamp")


def _ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1_000_000) // 1000
