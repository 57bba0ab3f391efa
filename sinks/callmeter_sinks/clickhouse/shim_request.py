"""One request of ClickHouse's HTTP interface, read: statement, data, parameters, settings.

Source: ClickHouse, "HTTP Interface". The statement is the parameter ``query``, the body, or one
after the other; ``param_<name>`` are bound values; every other parameter is a setting, but for
those that speak to the HTTP server itself.
"""

from __future__ import annotations

import gzip
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from email import message_from_bytes
from email.policy import HTTP
from importlib import import_module
from urllib.parse import parse_qsl

#: Parameters for the HTTP server, which the engine does not know as settings.
_TRANSPORT = frozenset(
    {
        "query", "database", "default_format", "user", "password", "session_id", "session_timeout",
        "session_check", "compress", "decompress", "enable_http_compression", "query_id",
        "http_zlib_compression_level", "send_progress_in_http_headers", "wait_end_of_query",
        "http_headers_progress_interval_ms", "client_protocol_version", "role", "quota_key",
        "buffer_size", "cancel_http_readonly_queries_on_client_close", "close_session",
        "add_http_cors_header",
    }
)  # fmt: skip
_INSERT = re.compile(rb"(?is)\s*INSERT\s+INTO\b.*?\bFORMAT\s+\w+[ \t\r]*(\n|\Z)")


class BadRequestError(ValueError):
    """A request that is none of the interface's."""


@dataclass(frozen=True, slots=True)
class Request:
    """``data`` is what follows an INSERT … FORMAT, None for any other statement."""

    sql: str
    data: bytes | None
    parameters: Mapping[str, str]
    settings: Mapping[str, str]
    default_format: str
    database: str | None

    @classmethod
    def read(cls, query: str, headers: Mapping[str, str], body: bytes) -> Request:
        """From the URL's query, the headers (names in lower case) and the decoded body."""
        fields = dict(parse_qsl(query, keep_blank_values=True))
        if headers.get("content-type", "").startswith("multipart/form-data"):
            fields |= _form(headers["content-type"], body)
            body = b""
        sql, data = _statement(fields.get("query", ""), body)
        return cls(
            sql,
            data,
            {n.removeprefix("param_"): v for n, v in fields.items() if n.startswith("param_")},
            {n: v for n, v in fields.items() if n not in _TRANSPORT and not n.startswith("param_")},
            fields.get("default_format") or headers.get("x-clickhouse-format") or "TabSeparated",
            fields.get("database") or headers.get("x-clickhouse-database") or None,
        )


def decoded(body: bytes, encoding: str) -> bytes:
    """The body without its Content-Encoding; ``BadRequestError`` for an unknown or broken one."""
    if encoding in ("", "identity"):
        return body
    try:
        if encoding == "gzip":
            return gzip.decompress(body)
        if encoding == "lz4":
            return bytes(import_module("lz4.frame").decompress(body))
        if encoding == "zstd":
            return _unzstd(body)
    except ImportError as exc:
        raise BadRequestError(f"Content-Encoding {encoding} needs a package more") from exc
    except (OSError, EOFError, RuntimeError, ValueError) as exc:
        raise BadRequestError(f"the body is not {encoding}") from exc
    raise BadRequestError(f"Content-Encoding {encoding[:20]!r} is not understood")


def _unzstd(body: bytes) -> bytes:
    # In the standard library from Python 3.14 on; before, what clickhouse-connect itself brings.
    zstd = import_module("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")
    try:
        return bytes(zstd.decompress(body))
    except zstd.ZstdError as exc:
        raise ValueError(str(exc)) from exc


def _statement(query: str, body: bytes) -> tuple[str, bytes | None]:
    try:
        if query and _INSERT.match(query.encode()):
            return query.strip(), body
        # A statement may be cut anywhere between parameter and body.
        whole = query.encode() + (b"\n" if query and body else b"") + body
        insert = _INSERT.match(whole)
        if insert:
            return whole[: insert.end()].decode().strip(), whole[insert.end() :]
        return whole.decode(), None
    except UnicodeDecodeError as exc:
        raise BadRequestError("the statement is not UTF-8") from exc


def _form(content_type: str, body: bytes) -> dict[str, str]:
    head = f"Content-Type: {content_type}\r\nMIME-Version: 1.0\r\n\r\n".encode()
    fields = {}
    for part in message_from_bytes(head + body, policy=HTTP).iter_parts():
        name = part.get_param("name", header="content-disposition")
        content = part.get_payload(decode=True)
        if isinstance(name, str) and isinstance(content, bytes):
            fields[name] = content.decode()
    return fields
