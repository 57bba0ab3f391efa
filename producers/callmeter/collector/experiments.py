"""``POST /v1/experiments``: create or join an experiment, and the routes around experiments.

An experiment is what is said of it: its description and metadata are events like any others, and
its id is its project and slug in one word, so a collector needs to remember nothing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgspec
import orjson
from aiohttp import web

from callmeter.collector import credentials, folders, series
from callmeter.collector.context import (
    CONTEXT,
    ApiError,
    RouteInstaller,
    json_response,
    require_read,
    require_write,
)
from callmeter.collector.experiments_fields import (
    experiment_id,
    json_field,
    project_of,
    read_object,
    split_id,
    text_field,
)
from callmeter.collector.experiments_reader import Reader, ask, reader_of
from callmeter.collector.experiments_source import STATEMENTS, Statements
from callmeter.schema.events import Experiment

PATH = "/v1/experiments"
MAX_SLUG_CHARS = 200
MAX_DESCRIPTION_CHARS = 4_000
MAX_META_BYTES = 64 * 1024
#: The key under which an experiment's metadata names its folder.
FOLDER_KEY = "callmeter.folder_id"
#: What a project may have for one of its experiments to be found by its id.
_MAX_EXPERIMENTS = 10_000


def experiment_routes(
    reader: Reader | None = None, *, credential_ttl_s: float = credentials.TTL_S
) -> Sequence[RouteInstaller]:
    """Everything around experiments, for ``extra_routes`` of the collector.

    ``reader`` answers questions about what is stored (``callmeter_sinks.queries.Queries`` is one);
    without it those are answered with 501.
    """

    def install(app: web.Application) -> None:
        app.cleanup_ctx.append(_lifetime)
        app.router.add_post(PATH, post_experiment)
        app.router.add_get(PATH + "/{id}", get_experiment)
        credentials.install(app, credential_ttl_s)
        folders.install(app, reader)
        series.install(app, reader)

    return (install,)


async def _lifetime(app: web.Application) -> AsyncIterator[None]:
    app[STATEMENTS] = Statements(app[CONTEXT])
    yield
    await app[STATEMENTS].close()


async def post_experiment(request: web.Request) -> web.Response:
    """201 with id and URL once the log has it; the same again for the same Idempotency-Key."""
    context = request.app[CONTEXT]
    grant = require_write(request)
    context.admit(grant, 1, 0)
    body = await read_object(request)
    slug = text_field(body, "slug", MAX_SLUG_CHARS, required=True)
    description = text_field(body, "description", MAX_DESCRIPTION_CHARS)
    folder = text_field(body, "folder_id", 256)
    meta = json_field(body, "metadata", MAX_META_BYTES)
    project = project_of(request, grant, text_field(body, "project", 256))
    said = [_statement(context.clock.now_us(), slug, description, meta)]
    if folder:
        said.append(_statement(context.clock.now_us(), slug, "", {FOLDER_KEY: folder}))
    key = request.headers.get("Idempotency-Key", "")
    await request.app[STATEMENTS].say(project, f"experiment {slug} {key}" if key else "", said)
    name = experiment_id(project, slug)
    made = {
        "id": name,
        "slug": slug,
        "project": project,
        "url": f"{request.url.origin()}{PATH}/{name}",
        "description": description,
        "metadata": meta,
    }
    return json_response({"experiment": made, **credentials.minted(request)}, 201)


async def get_experiment(request: web.Request) -> web.Response:
    """What is known of an experiment: where its URL leads."""
    grant = require_read(request)
    project, slug = split_id(request.match_info["id"])
    if not grant.covers(project):
        raise ApiError(403, "project", f"this key does not cover the project {project!r}")
    reader = reader_of(request)
    rows = await ask(lambda: reader.experiments(project=project, limit=_MAX_EXPERIMENTS))
    for row in rows:
        if row.slug == slug:
            return json_response(
                {
                    "id": request.match_info["id"],
                    "slug": slug,
                    "project": project,
                    "status": row.status,
                    "description": row.description,
                    "metadata": dict(row.metadata),
                    "error": {"name": row.error_name, "detail": row.error_detail},
                    "first_at": row.first_at.isoformat(),
                    "last_at": row.last_at.isoformat(),
                }
            )
    raise ApiError(404, "unknown", "no such experiment: it may take a second to be stored")


def _statement(now_us: int, slug: str, description: str, meta: Any) -> bytes:
    event = Experiment(ts_us=now_us, slug=slug, description=description)
    if meta:
        event.meta = msgspec.Raw(orjson.dumps(meta))
    return msgspec.json.encode(event)
