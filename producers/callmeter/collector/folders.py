"""Folders: ``GET /v1/folders?path=`` finds them, ``POST /v1/folders`` makes one.

A folder is a note of its project that says its id and path; an experiment in it says the id.
"""

from __future__ import annotations

import msgspec
import orjson
from aiohttp import web

from callmeter.collector.context import (
    CONTEXT,
    ApiError,
    json_response,
    require_read,
    require_write,
)
from callmeter.collector.experiments_fields import project_of, read_object, text_field
from callmeter.collector.experiments_reader import READER, Reader, ask, reader_of
from callmeter.collector.experiments_source import STATEMENTS
from callmeter.collector.keys import Grant
from callmeter.ids import uuid7, uuid8
from callmeter.schema.events import Annotation

PATH = "/v1/folders"
MAX_PATH_CHARS = 1024
#: The key under which a note says that it is a folder.
FOLDER_KEY = "callmeter.folder"
_FIND = (
    f"SELECT JSONExtractString(metadata, '{FOLDER_KEY}', 'id') AS id, min(ts) AS made_at "  # noqa: S608  # a constant; values are bound
    "FROM annotations WHERE project = {project:String} AND experiment = '' "
    f"AND JSONExtractString(metadata, '{FOLDER_KEY}', 'path') = {{path:String}} "
    "GROUP BY id ORDER BY made_at, id"
)


def install(app: web.Application, reader: Reader | None) -> None:
    """Add the routes."""
    if reader is not None:
        app[READER] = reader
    app.router.add_get(PATH, get_folders)
    app.router.add_post(PATH, post_folder)


async def get_folders(request: web.Request) -> web.Response:
    """``{"folders": [{"id", "path"}]}``: none, one, or several that were made with one path."""
    project = project_of(request, _either(request), request.query.get("project", ""))
    path = checked_path(request.query.get("path", ""))
    reader = reader_of(request)
    found = await ask(lambda: reader.store.query(_FIND, {"project": project, "path": path}))
    return json_response({"folders": [{"id": row[0], "path": path} for row in found.rows]})


async def post_folder(request: web.Request) -> web.Response:
    """201 with the new folder once the log has it."""
    grant = require_write(request)
    body = await read_object(request)
    path = checked_path(text_field(body, "path", MAX_PATH_CHARS, required=True))
    project = project_of(request, grant, text_field(body, "project", 256))
    key = request.headers.get("Idempotency-Key") or uuid7()
    name = uuid8(b"callmeter.folder", project.encode(), path.encode(), key.encode())
    note = Annotation(
        ts_us=request.app[CONTEXT].clock.now_us(),
        text=f"folder {path}",
        metadata=msgspec.Raw(orjson.dumps({FOLDER_KEY: {"id": name, "path": path}})),
        event_id=name,
    )
    await request.app[STATEMENTS].say(project, f"folder {name}", [msgspec.json.encode(note)])
    return json_response({"folder": {"id": name, "path": path, "project": project}}, 201)


def checked_path(path: str) -> str:
    """``/name[/name…]`` without a slash at the end; ``ApiError`` 400."""
    if not path.startswith("/") or len(path) > MAX_PATH_CHARS or not path.isprintable():
        raise ApiError(400, "bad_value", "a folder's path is /name[/name…]")
    return path.rstrip("/") or "/"


def _either(request: web.Request) -> Grant:
    """Who may write into a folder may look for it; so may who reads."""
    try:
        return require_write(request)
    except ApiError as exc:
        if exc.status != 403:
            raise
        return require_read(request)
