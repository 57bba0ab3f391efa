"""ClickHouse's HTTP interface over a chDB store that this process has open.

For other processes and for dashboards: ``clickhouse-connect``, ``curl``, and whatever speaks to
ClickHouse over HTTP in a text format, JSON or Arrow. Readers only, unless ``writable``, which tests
use to put the HTTP store before an engine. Not a server: no users, no sessions, no cancelling.
"""

from __future__ import annotations

import hmac
import ipaddress
import json
import logging
import os
import re
import socket
import sys
import tempfile
import threading
import uuid
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

from callmeter.errors import ConfigError, MissingExtraError
from callmeter_sinks.clickhouse.chdb_store import ChdbStore
from callmeter_sinks.clickhouse.shim_guard import may_set, refusal
from callmeter_sinks.clickhouse.shim_request import BadRequestError, Request, decoded

log = logging.getLogger("callmeter.shim")

MAX_BODY_BYTES = 64 * 2**20
MAX_QUERIES = 4
#: What a reader may use up, unless it asks for less.
READER_LIMITS = {"max_execution_time": "30", "max_memory_usage": str(2 * 2**30)}

_READONLY = 164
_NO_AUTH = 516
_CODE = re.compile(r"Code: (\d+)")
_SETTING = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_INSERT = re.compile(r"(?is)\s*(INSERT\s+INTO\s+.*?)\s*\bFORMAT\s+(\w+)\s*\Z")
_LOCAL_NAMES = {"localhost", "127.0.0.1", "::1"}


class EngineError(Exception):
    """The engine's refusal, or the shim's in its form."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass
class CutInserts:
    """How many of the next inserts are executed and then not answered, the connection cut."""

    left: int = 0
    done: int = 0


class ShimServer:
    """Serves from construction until ``close``, on threads of its own.

    Every request gets its own handle on the engine, so a slow question does not hold up the store's
    owner. ``url`` is for ``open_store``, ``address`` what was bound. Bound to anything but loopback
    it demands a password (``ConfigError``): as basic auth, ``X-ClickHouse-Key`` or ``password=``.
    Raises ``ConfigError`` if the address cannot be bound.
    """

    def __init__(
        self,
        store: ChdbStore,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        password: str | None = None,
        writable: bool = False,
    ) -> None:
        if not _is_loopback(host) and not password:
            raise ConfigError("the store is served beyond this machine only with a password")
        self.cut = CutInserts()
        self._engine = _Engine(store, writable, self.cut)
        handler = type("Handler", (_Handler,), {"engine": self._engine, "password": password})
        try:
            self._server = _Server((host, port), handler)
        except OSError as exc:
            raise ConfigError(f"cannot serve the store on {host}:{port}: {exc.strerror}") from exc
        self.address: tuple[str, int] = self._server.server_address[:2]  # type: ignore[assignment]
        self.url = f"clickhouse://{host}:{self.address[1]}/default?replicated=no"
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.1},
            name="callmeter-shim", daemon=True,
        )  # fmt: skip
        self._thread.start()

    def close(self) -> None:
        """Answer what has begun, then stop. The store stays open."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        log.debug("a connection of %s broke: %s", client_address, sys.exception())


class _Engine:
    """Runs requests, each on a handle of its own, at most ``MAX_QUERIES`` at a time."""

    def __init__(self, store: ChdbStore, writable: bool, cut: CutInserts) -> None:
        self._path = os.path.realpath(store.path)
        self._writable = writable
        self._cut = cut
        self._slots = threading.BoundedSemaphore(MAX_QUERIES)
        self._cut_lock = threading.Lock()

    def run(self, request: Request) -> tuple[bytes, bool]:
        """The answer's bytes, and whether the connection is to be cut instead of answering."""
        try:
            import chdb
        except ImportError as exc:
            raise MissingExtraError("chdb", "embedded") from exc
        with self._slots:
            handle = chdb.connect(self._path)  # type: ignore[no-untyped-call, unused-ignore]
            try:
                self._prepare(handle, request)
                if request.data is not None:
                    self._insert(handle, request)
                    return b"", self._cuts()
                return self._query(
                    handle, request.sql, request.default_format, request.parameters
                ), False
            finally:
                handle.close()

    def _prepare(self, handle: Any, request: Request) -> None:
        """Settings and database on the handle, which nobody else uses; read-only comes last."""
        if request.database is not None:
            if not _SETTING.match(request.database):
                raise EngineError(
                    81, "Code: 81. DB::Exception: no such database (UNKNOWN_DATABASE)"
                )
            self._query(handle, f"USE `{request.database}`")
        settings = dict(request.settings)
        if not self._writable:
            for name in settings:
                if not may_set(name):
                    raise _refused(f"the setting {name[:60]} cannot be given here")
            settings = READER_LIMITS | settings
        for name, value in settings.items():
            if not _SETTING.match(name):
                raise _refused("not the name of a setting")
            self._query(handle, f"SET {name} = {_quoted(value)}")
        if self._writable:
            return
        if request.data is not None:
            raise _refused("this store is served read-only")
        self._query(handle, "SET readonly = 1")
        canonical = self._query(
            handle, "SELECT formatQuery({q:String})", "TSVRaw", {"q": _escaped(request.sql)}
        )
        why = refusal(canonical.decode("utf-8", "replace"))
        if why is not None:
            raise _refused(why)

    def _insert(self, handle: Any, request: Request) -> None:
        shape = _INSERT.match(request.sql)
        if shape is None or request.data is None:
            raise EngineError(62, "Code: 62. DB::Exception: not an INSERT … FORMAT (SYNTAX_ERROR)")
        fd, name = tempfile.mkstemp(suffix=".insert")
        try:
            with os.fdopen(fd, "wb") as out:
                out.write(request.data)
            self._query(handle, f"{shape[1]} FROM INFILE {_quoted(name)} FORMAT {shape[2]}")
        finally:
            Path(name).unlink()

    def _cuts(self) -> bool:
        with self._cut_lock:
            if self._cut.left == 0:
                return False
            self._cut.left -= 1
            self._cut.done += 1
            return True

    @staticmethod
    def _query(
        handle: Any,
        sql: str,
        fmt: str = "TabSeparated",
        parameters: Mapping[str, str] | None = None,
    ) -> bytes:
        try:
            answer = handle.query(sql, fmt, params=dict(parameters)) if parameters else (
                handle.query(sql, fmt)
            )  # fmt: skip
        except Exception as exc:  # chdb raises bare exceptions that hold the engine's text
            text = str(exc)
            text = text[max(text.find("Code: "), 0) :].strip()
            code = _CODE.search(text)
            raise EngineError(int(code[1]) if code else 1, text) from exc
        return bytes(answer.bytes() or b"") if answer is not None else b""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "callmeter"
    sys_version = ""
    timeout = 120
    engine: _Engine
    password: str | None

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        log.debug(format, *args)

    def _answer(self) -> None:
        parts = urlsplit(self.path)
        try:
            body = self._body()
            if parts.path == "/ping" or (self.command == "GET" and "query=" not in parts.query):
                self._reply(200, b"Ok.\n")
                return
            self._authorize(parts.query)
            headers = {name.lower(): value for name, value in self.headers.items()}
            request = Request.read(parts.query, headers, body)
            answer, cut = self.engine.run(request)
        except BadRequestError as exc:
            self.close_connection = True
            self._reply(400, f"{exc}\n".encode())
        except EngineError as exc:
            status = 403 if exc.code in (_READONLY, _NO_AUTH) else 500
            self._reply(status, f"{exc}\n".encode(), {"X-ClickHouse-Exception-Code": str(exc.code)})
        else:
            if cut:
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            self._reply(200, answer, {"X-ClickHouse-Format": request.default_format})

    def _body(self) -> bytes:
        encoding = self.headers.get("Content-Encoding", "").strip().lower()
        if "chunked" in self.headers.get("Transfer-Encoding", "").lower():
            return decoded(self._chunks(), encoding)
        try:
            length = int(self.headers.get("Content-Length") or 0)
        except ValueError as exc:
            raise BadRequestError("Content-Length is not a number") from exc
        if not 0 <= length <= MAX_BODY_BYTES:
            raise BadRequestError(f"the body is over {MAX_BODY_BYTES} bytes")
        return decoded(self.rfile.read(length), encoding)

    def _chunks(self) -> bytes:
        out = bytearray()
        while True:
            try:
                size = int(self.rfile.readline(32).split(b";")[0], 16)
            except ValueError as exc:
                raise BadRequestError("a chunk without a size") from exc
            if size < 0 or len(out) + size > MAX_BODY_BYTES:
                raise BadRequestError(f"the body is over {MAX_BODY_BYTES} bytes")
            out += self.rfile.read(size)
            self.rfile.readline(8)
            if size == 0:
                return bytes(out)

    def _authorize(self, query: str) -> None:
        if self.password is None:
            # No password: only who calls this machine by its own name. A page that had its name
            # resolved to loopback (DNS rebinding) calls it by another.
            host = urlsplit(f"//{self.headers.get('Host', '')}").hostname
            if host not in _LOCAL_NAMES:
                raise EngineError(_NO_AUTH, "Code: 516. DB::Exception: call it by localhost")
            return
        given = self.headers.get("X-ClickHouse-Key") or ""
        basic = self.headers.get("Authorization", "")
        if not given and basic.startswith("Basic "):
            try:
                given = b64decode(basic[6:]).decode().partition(":")[2]
            except ValueError:
                given = ""
        given = given or parse_qs(query).get("password", [""])[0]
        if not hmac.compare_digest(given.encode(), self.password.encode()):
            raise EngineError(_NO_AUTH, "Code: 516. DB::Exception: wrong password")

    def _reply(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        summary = {"read_rows": "0", "read_bytes": "0", "written_rows": "0", "written_bytes": "0"}
        told = {
            "Content-Type": "text/plain; charset=UTF-8",
            "Content-Length": str(len(body)),
            "X-ClickHouse-Server-Display-Name": "callmeter",
            "X-ClickHouse-Timezone": "UTC",
            "X-ClickHouse-Query-Id": str(uuid.uuid4()),
            "X-ClickHouse-Summary": json.dumps(summary),
            **(headers or {}),
        }
        for name, value in told.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


def _refused(why: str) -> EngineError:
    return EngineError(_READONLY, f"Code: {_READONLY}. DB::Exception: {why} (READONLY)")


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _escaped(text: str) -> str:
    """As a bound parameter travels: TabSeparated's escapes (ClickHouse, "Formats")."""
    for char, escape in (
        ("\\", "\\\\"),
        ("\t", "\\t"),
        ("\n", "\\n"),
        ("\r", "\\r"),
        ("\0", "\\0"),
    ):
        text = text.replace(char, escape)
    return text


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
