"""The collector's log lines: what happened, never what was sent.

A line names the route as it was registered, not the path as it was sent; the key by its name; the
caller by its address. Bodies, query strings, headers and texts of foreign exceptions are in none.
"""

from __future__ import annotations

import copy
import logging
import re
import secrets
import time
import traceback
from typing import Any

import orjson
from aiohttp import web

from callmeter.collector.context import Notes

REQUEST_ID_HEADER = "X-Request-Id"
access = logging.getLogger("callmeter.collector.access")

_GOOD_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/+=-]{0,127}\Z")
#: What a record may carry beside its message, through ``extra``.
_FIELDS = (
    "request_id",
    "method",
    "route",
    "status",
    "reason",
    "duration_ms",
    "bytes_in",
    "key",
    "remote",
)
_READS_WHAT_WAS_SENT = ("callmeter.collector", "aiohttp", "asyncio")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class JsonFormatter(logging.Formatter):
    """One JSON object a line; an exception as its type and where it came from, without its text:
    that may quote what was sent.
    """

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        for name in _FIELDS:
            value = getattr(record, name, None)
            if value is not None:
                line[name] = value
        if record.exc_info and record.exc_info[0] is not None:
            line["exception"] = record.exc_info[0].__name__
            frames = traceback.extract_tb(record.exc_info[2])
            line["at"] = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]
        return orjson.dumps(line, default=str).decode()


class TextFormatter(logging.Formatter):
    """For people, with the same reserve about exceptions of whatever reads what was sent."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        exc = record.exc_info
        if not record.name.startswith(_READS_WHAT_WAS_SENT) or not exc or exc[0] is None:
            return super().format(record)
        reserved = copy.copy(record)
        reserved.exc_info = None
        reserved.exc_text = "".join([*traceback.format_tb(exc[2]), exc[0].__name__])
        return super().format(reserved)


def set_up_logs(form: str) -> None:
    """Log to stderr in this form, ``text`` or ``json``; with JSON also a line for each request."""
    root = logging.getLogger()
    for handler in root.handlers:
        handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    if form == "json":
        logging.getLogger("callmeter.collector").setLevel(logging.INFO)


def request_id(request: web.Request) -> str:
    """The caller's own id of the request if it is harmless, else a new one."""
    given = request.headers.get(REQUEST_ID_HEADER, "")
    return given if _GOOD_ID.match(given) else secrets.token_hex(8)


def log_request(
    request: web.Request, notes: Notes, route: str, status: int, started_s: float
) -> None:
    """One line for a request that was answered."""
    if not access.isEnabledFor(logging.INFO):
        return
    access.info(
        "%s %s",
        route,
        status,
        extra={
            "request_id": notes.request_id,
            "method": request.method if request.method in _METHODS else "other",
            "route": route,
            "status": status,
            "reason": notes.reason or None,
            "duration_ms": round((time.perf_counter() - started_s) * 1000, 3),
            "bytes_in": request.content_length,
            "key": notes.key or None,
            "remote": request.remote,
        },
    )
