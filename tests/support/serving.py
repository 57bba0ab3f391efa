"""A scripted HTTP server and a transport that sends to it."""

from __future__ import annotations

import gzip
import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

import orjson
import zstandard

from callmeter.schema.envelope import decode_header, split_envelopes
from callmeter.transports.factory import open_transport
from callmeter.transports.http import HttpTransport
from callmeter.transports.options import TransportOptions
from callmeter.transports.protocol import Delivery, Outcome, Sealed

SOURCE = "01900000-0000-7000-8000-000000000000"


def sealed(seq: int, pad: int = 0) -> Sealed:
    head = {"v": 1, "source": SOURCE, "seq": seq, "n": 1, "sent_us": 1, "project": "p"}
    data = orjson.dumps(head) + b'\n{"kind":"x","t":"' + b"x" * pad + b'"}\n'
    return Sealed(SOURCE, seq, 1, data)


@dataclass
class Request:
    line: str
    headers: dict[str, str]
    body: bytes

    @property
    def seqs(self) -> list[int]:
        plain = self.body
        match self.headers.get("content-encoding"):
            case "gzip":
                plain = gzip.decompress(plain)
            case "zstd":
                plain = zstandard.ZstdDecompressor().decompress(plain, 2**24)
        return [decode_header(e.partition(b"\n")[0]).seq for e in split_envelopes(plain)]


Reply = Callable[[Request], bytes | None]


def reply(status: int, body: object, *headers: str) -> bytes:
    data = orjson.dumps(body)
    head = [f"HTTP/1.1 {status} X", f"Content-Length: {len(data)}", *headers]
    return "\r\n".join([*head, "", ""]).encode() + data


def taken(request: Request) -> bytes:
    results = [{"source": SOURCE, "seq": s, "partition": 0, "offset": s} for s in request.seqs]
    return reply(200, {"results": results})


@dataclass
class Server:
    """Answers each request with the next reply of the script, the last one for ever. A reply of
    None closes the connection without an answer.
    """

    script: list[Reply]
    tls: ssl.SSLContext | None = None
    requests: list[Request] = field(default_factory=list)
    connections: int = 0

    def __post_init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):  # the listener is closed when the test ends
            while True:
                conn, _ = self._listener.accept()
                self.connections += 1
                threading.Thread(target=self._serve, args=(conn,), daemon=True).start()

    def _serve(self, conn: socket.socket) -> None:
        with suppress(OSError):  # the client may go at any time
            if self.tls is not None:
                conn = self.tls.wrap_socket(conn, server_side=True)
            with conn:
                self._open.append(conn)
                self._answer(conn)

    def _answer(self, conn: socket.socket) -> None:
        reader = conn.makefile("rb")
        while (request := self._read(reader)) is not None:
            self.requests.append(request)
            answer = self.script[0] if len(self.script) == 1 else self.script.pop(0)
            data = answer(request)
            if data is None:
                conn.shutdown(socket.SHUT_RDWR)
                return
            conn.sendall(data)

    @staticmethod
    def _read(reader) -> Request | None:
        line = reader.readline().decode().strip()
        headers: dict[str, str] = {}
        while text := reader.readline().decode().strip():
            name, _, value = text.partition(":")
            headers[name.lower()] = value.strip()
        body = reader.read(int(headers.get("content-length", 0)))
        return Request(line, headers, body) if line else None

    def drop_connections(self) -> None:
        for conn in self._open:
            with suppress(OSError):
                conn.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._listener.close()
        self.drop_connections()


class Sending:
    """A transport, opened, and its reports."""

    def __init__(self, url: str, **options) -> None:
        options.setdefault("environ", {})
        self.transport = open_transport(url, settings=TransportOptions(**options))
        assert isinstance(self.transport, HttpTransport)
        self.reports: list[Delivery] = []
        self.transport.open(self.reports.append)

    def send(self, *envelopes: Sealed) -> None:
        for envelope in envelopes:
            assert self.transport.send(envelope)

    def wait(self, count: int) -> list[tuple[int, Outcome]]:
        for _ in range(600):
            if len(self.reports) >= count:
                break
            self.transport.poll(0.05)
        return sorted((r.envelope.seq, r.outcome) for r in self.reports)


def url(server: Server) -> str:
    return f"http://127.0.0.1:{server.port}"
