"""One kept-alive HTTP connection to a collector, with TLS, proxies and time-outs (stdlib only)."""

from __future__ import annotations

import base64
import contextlib
import http.client
import os
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies

from callmeter.errors import ConfigError
from callmeter.transports.url import HttpEndpoint

#: More than any answer of a collector; a stranger's endless page is cut here.
MAX_ANSWER_BYTES = 4 * 2**20
_BAD_PROXY = "a proxy is http://[user:password@]host[:port], in HTTP_PROXY or HTTPS_PROXY"


@dataclass(frozen=True, slots=True)
class Answer:
    """Status, headers (names in lower case) and body of a response."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class NoAnswerError(Exception):
    """Nothing usable came back. The request may or may not have been taken; one line says why."""


@dataclass(frozen=True, slots=True)
class _Proxy:
    host: str
    port: int
    authorization: str | None


class HttpConnection:
    """Used by one thread at a time, except ``abort``. Survives a fork by starting anew."""

    def __init__(
        self,
        endpoint: HttpEndpoint,
        *,
        timeout_s: float,
        ca_file: str | None,
        environ: Mapping[str, str],
    ) -> None:
        self._endpoint = endpoint
        self._timeout_s = timeout_s
        self._tls = _tls_context(ca_file) if endpoint.tls else None
        self._proxy = _proxy_for(endpoint, environ)
        self._conn: http.client.HTTPConnection | None = None
        #: Kept apart: a connection lets go of its socket while the last answer on it is read.
        self._sock: socket.socket | None = None
        self._pid = os.getpid()

    def post(self, path: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        """One POST. A kept-alive connection that turns out dead is replaced once, at once.

        Raises ``NoAnswerError``; sending the same envelopes again is safe whatever happened.
        """
        return self._exchange("POST", path, body, headers)

    def get(self, path: str, headers: Mapping[str, str]) -> Answer:
        """One GET, as ``post``."""
        return self._exchange("GET", path, None, headers)

    def _exchange(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]
    ) -> Answer:
        if self._conn is not None and self._pid != os.getpid():
            # The parent's socket: never write to it, never shut it down.
            self._conn = self._sock = None
        self._pid = os.getpid()
        reused = self._conn is not None
        try:
            return self._request(method, path, body, headers)
        except (ConnectionError, http.client.BadStatusLine) as exc:
            self.close()
            if not reused:
                raise NoAnswerError(self._line(exc)) from exc
        except (OSError, http.client.HTTPException) as exc:
            self.close()
            raise NoAnswerError(self._line(exc)) from exc
        try:
            return self._request(method, path, body, headers)
        except (OSError, http.client.HTTPException) as exc:
            self.close()
            raise NoAnswerError(self._line(exc)) from exc

    def _request(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]
    ) -> Answer:
        conn = self._connect()
        sent = dict(headers)
        target = self._endpoint.base + path
        if self._proxy is not None and not self._endpoint.tls:
            target = f"http://{self._endpoint.authority}{target}"
            sent["Host"] = self._endpoint.authority
            if self._proxy.authorization:
                sent["Proxy-Authorization"] = self._proxy.authorization
        # A server may answer (413, 401) and close before it has read the whole body: its answer is
        # worth more than the broken pipe. A connection dead from the start has no answer either.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            conn.request(method, target, body=body, headers=sent)
        response = conn.getresponse()
        data = response.read(MAX_ANSWER_BYTES)
        if response.length and len(data) < MAX_ANSWER_BYTES:  # it broke off; read() does not mind
            raise http.client.IncompleteRead(data, response.length)
        if response.will_close or not response.isclosed():
            self.close()
        answer_headers = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, answer_headers, data)

    def _connect(self) -> http.client.HTTPConnection:
        if self._conn is not None:
            return self._conn
        at, proxy = self._endpoint, self._proxy
        host, port = (proxy.host, proxy.port) if proxy else (at.host, at.port)
        conn: http.client.HTTPConnection
        if self._tls is not None:
            conn = http.client.HTTPSConnection(
                host, port, timeout=self._timeout_s, context=self._tls
            )
        else:
            conn = http.client.HTTPConnection(host, port, timeout=self._timeout_s)
        if proxy is not None and at.tls:
            authorization = {"Proxy-Authorization": proxy.authorization or ""}
            conn.set_tunnel(at.host, at.port, authorization if proxy.authorization else {})
        self._conn = conn
        conn.connect()
        self._sock = conn.sock
        conn.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return conn

    def close(self) -> None:
        """Close the connection; the next POST opens another."""
        conn, self._conn, self._sock = self._conn, None, None
        if conn is not None:
            conn.close()

    def abort(self) -> None:
        """From another thread: make a request, or an answer that is read, end with an error."""
        sock = self._sock
        if sock is not None and self._pid == os.getpid():
            # It may be closed or not yet connected by now: then nothing hangs on it.
            with contextlib.suppress(OSError, ValueError):
                sock.shutdown(socket.SHUT_RDWR)

    def _line(self, exc: Exception) -> str:
        where = self._endpoint.display
        if isinstance(exc, ssl.SSLCertVerificationError):
            return f"{where}: its certificate is not trusted: {exc.verify_message}"
        if isinstance(exc, TimeoutError):
            return f"{where}: no answer within {self._timeout_s:g} s"
        if isinstance(exc, http.client.RemoteDisconnected):
            return f"{where}: the connection was closed without an answer"
        if isinstance(exc, socket.gaierror):
            return f"{where}: the host name is not known: {exc.strerror}"
        text = (exc.strerror if isinstance(exc, OSError) else None) or str(exc)
        return f"{where}: {text or type(exc).__name__}".splitlines()[0]


def _tls_context(ca_file: str | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError) as exc:
        raise ConfigError(f"cannot use the CA file {ca_file}: {exc}") from None


def _proxy_for(endpoint: HttpEndpoint, environ: Mapping[str, str]) -> _Proxy | None:
    """The proxy of ``HTTP_PROXY``, ``HTTPS_PROXY`` and ``NO_PROXY``; never one to this machine."""
    if endpoint.loopback:
        return None
    proxies = getproxies() if environ is os.environ else _proxies(environ)
    if _bypassed(endpoint, proxies.get("no", "")):
        return None
    url = proxies.get("https" if endpoint.tls else "http") or proxies.get("all")
    if not url:
        return None
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        host, port = parts.hostname or "", parts.port or 80
    except ValueError:
        raise ConfigError(_BAD_PROXY) from None
    if not host or parts.scheme != "http":
        raise ConfigError(_BAD_PROXY)
    authorization = None
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        authorization = "Basic " + base64.b64encode(pair.encode()).decode()
    return _Proxy(host, port, authorization)


def _bypassed(endpoint: HttpEndpoint, no_proxy: str) -> bool:
    """``NO_PROXY``: ``*``, or names that match as suffixes at a dot, with or without a port."""
    host = endpoint.host.lower()
    names = [name.strip().lower().lstrip(".") for name in no_proxy.split(",")]
    candidates = (host, f"{host}:{endpoint.port}")
    return any(
        name == "*" or any(c == name or c.endswith("." + name) for c in candidates)
        for name in names
        if name
    )


def _proxies(environ: Mapping[str, str]) -> dict[str, str]:
    """As ``getproxies_environment``, over a given mapping."""
    if "REQUEST_METHOD" in environ and "HTTP_PROXY" in environ:
        environ = {k: v for k, v in environ.items() if k != "HTTP_PROXY"}  # httpoxy
    return {
        name.lower().removesuffix("_proxy"): value
        for name, value in environ.items()
        if name.lower().endswith("_proxy") and value
    }
