"""The HTTP transport against servers that misbehave, each a script of answers."""

from __future__ import annotations

import base64
import gzip
import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field

import orjson
import pytest
import trustme
import zstandard

from callmeter.schema.envelope import decode_header, split_envelopes
from callmeter.transports.factory import open_transport
from callmeter.transports.http import MAX_POST_ENVELOPES, HttpTransport
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
            self._open.append(conn)
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


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def start(*script: Reply, tls: ssl.SSLContext | None = None) -> Server:
        servers.append(Server(list(script), tls))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


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


@pytest.fixture
def sending() -> Iterator[Callable[..., Sending]]:
    made: list[Sending] = []

    def start(url: str, **options) -> Sending:
        made.append(Sending(url, **options))
        return made[-1]

    yield start
    for one in made:
        one.transport.close(0.0)


def url(server: Server) -> str:
    return f"http://127.0.0.1:{server.port}"


def test_one_connection_and_several_envelopes_a_post(serve, sending) -> None:
    gate = threading.Event()

    def slow(request: Request) -> bytes:
        gate.wait(30)
        return taken(request)

    server = serve(slow, taken)
    s = sending(url(server), api_key="sesame-1")
    s.send(sealed(0))
    for _ in range(3000):
        if server.requests:
            break
        s.transport.poll(0.01)
    s.send(*(sealed(seq) for seq in range(1, 6)))
    gate.set()
    assert s.wait(6) == [(seq, Outcome.DELIVERED) for seq in range(6)]
    assert [r.seqs for r in server.requests] == [[0], [1, 2, 3, 4, 5]]
    assert server.connections == 1
    request = server.requests[0]
    assert request.line == "POST /v1/envelopes HTTP/1.1"
    assert request.headers["authorization"] == "Bearer sesame-1"
    assert request.headers["content-type"] == "application/x-ndjson"
    assert [r.offset for r in s.reports] == list(range(6))


def test_posts_are_bounded_by_count_and_bytes(serve, sending) -> None:
    server = serve(taken)
    s = sending(url(server), max_in_flight_bytes=2**26)
    s.send(*(sealed(seq) for seq in range(2 * MAX_POST_ENVELOPES + 5)))
    s.wait(2 * MAX_POST_ENVELOPES + 5)
    assert max(len(r.seqs) for r in server.requests) <= MAX_POST_ENVELOPES
    many = 2 * MAX_POST_ENVELOPES + 5
    s.send(*(sealed(many + seq, pad=200_000) for seq in range(30)))
    assert s.wait(many + 30) == [(seq, Outcome.DELIVERED) for seq in range(many + 30)]
    assert max(len(r.body) for r in server.requests) <= 2 * 2**20


@pytest.mark.parametrize("codec", ["gzip", "zstd"])
def test_compression(serve, sending, codec: str) -> None:
    server = serve(taken)
    s = sending(url(server), compression=codec)
    s.send(sealed(0, pad=50_000))
    assert s.wait(1) == [(0, Outcome.DELIVERED)]
    assert server.requests[0].headers["content-encoding"] == codec
    assert len(server.requests[0].body) < 5_000


def test_a_server_without_the_codec_gets_a_weaker_one(serve, sending) -> None:
    unknown = lambda request: reply(415, {})  # noqa: E731
    server = serve(unknown, unknown, taken)
    s = sending(url(server), compression="zstd")
    s.send(sealed(0, pad=5000))
    assert s.wait(1) == [(0, Outcome.DELIVERED)]
    encodings = [r.headers.get("content-encoding") for r in server.requests]
    assert encodings == ["zstd", "gzip", None]
    refusing = serve(unknown)
    s = sending(url(refusing), compression="none")
    s.send(sealed(0))
    assert s.wait(1) == [(0, Outcome.RETRY)]


def test_a_kept_alive_connection_that_died_is_replaced_at_once(serve, sending) -> None:
    server = serve(taken)
    s = sending(url(server))
    s.send(sealed(0))
    s.wait(1)
    server.drop_connections()
    s.send(sealed(1))
    assert s.wait(2) == [(0, Outcome.DELIVERED), (1, Outcome.DELIVERED)]
    assert server.connections == 2


def test_a_connection_closed_without_an_answer_is_a_retry(serve, sending) -> None:
    server = serve(lambda _: None, taken)
    s = sending(url(server))
    s.send(sealed(0))
    assert s.wait(1) == [(0, Outcome.RETRY)]
    assert "without an answer" in (s.reports[0].error or "")
    s.send(sealed(0))
    assert s.wait(2) == [(0, Outcome.DELIVERED), (0, Outcome.RETRY)]


def test_the_bad_one_is_refused_and_its_neighbours_arrive(serve, sending) -> None:
    def judge(request: Request) -> bytes:
        if 3 in request.seqs:
            body = {"error": "bad", "source": SOURCE, "seq": 3, "envelope": 0}
            return reply(400, body)
        return taken(request)

    s = sending(url(serve(judge)))
    s.send(*(sealed(seq) for seq in range(6)))
    expected = [(seq, Outcome.DELIVERED) for seq in range(6)]
    expected[3] = (3, Outcome.REFUSED)
    assert s.wait(6) == expected


def test_a_body_too_large_is_halved_until_the_culprit_is_alone(serve, sending) -> None:
    def picky(request: Request) -> bytes:
        if len(request.seqs) > 2 or 5 in request.seqs:
            return reply(413, {"error": "too large"})
        return taken(request)

    s = sending(url(serve(picky)))
    s.send(*(sealed(seq) for seq in range(8)))
    expected = [(seq, Outcome.DELIVERED) for seq in range(8)]
    expected[5] = (5, Outcome.REFUSED)
    assert s.wait(8) == expected


def test_busy_hands_everything_back_with_the_server_s_wish(serve, sending) -> None:
    server = serve(lambda _: reply(503, {"error": "log away"}, "Retry-After: 9"))
    s = sending(url(server))
    s.send(*(sealed(seq) for seq in range(4)))
    assert s.wait(4) == [(seq, Outcome.RETRY) for seq in range(4)]
    assert {(r.error, r.retry_after_s) for r in s.reports} == {("HTTP 503: log away", 9.0)}


def test_an_answer_given_before_the_body_is_read_is_heard(serve, sending) -> None:
    class Hasty(Server):
        @staticmethod
        def _read(reader) -> Request | None:
            return Request("", {}, b"") if reader.readline() else None

    server = Hasty([lambda _: reply(401, {"error": "no key"}, "Connection: close"), lambda _: None])
    s = sending(url(server))
    s.send(sealed(0, pad=250_000))
    s.wait(1)
    server.close()
    assert s.reports[0].outcome is Outcome.RETRY


def test_a_hanging_server_is_a_retry_after_the_time_out(serve, sending) -> None:
    never = threading.Event()
    server = serve(lambda _: never.wait(60) and None)
    s = sending(url(server), timeout_s=0.2)
    s.send(sealed(0))
    assert s.wait(1) == [(0, Outcome.RETRY)]
    assert "0.2 s" in (s.reports[0].error or "")
    never.set()


def test_close_does_not_wait_for_a_server_that_hangs(serve) -> None:
    never = threading.Event()
    server = serve(lambda _: never.wait(60) and None)
    s = Sending(url(server), timeout_s=300.0)
    s.send(*(sealed(seq) for seq in range(3)))
    s.transport.close(0.1)
    assert [r.outcome for r in s.reports] == [Outcome.RETRY] * 3
    assert not any(t.name == "callmeter-http" and t.is_alive() for t in threading.enumerate())
    never.set()


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")  # it is the point
def test_a_child_closes_without_touching_its_parent_s_connection(serve, sending) -> None:
    server = serve(taken)
    s = sending(url(server))
    s.send(sealed(0))
    s.wait(1)
    pid = os.fork()
    if pid == 0:
        s.transport.close(5.0)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    s.send(sealed(1))
    assert s.wait(2) == [(0, Outcome.DELIVERED), (1, Outcome.DELIVERED)]
    assert server.connections == 1


class TestProxies:
    def test_http_goes_through_with_its_whole_url(self, serve, sending) -> None:
        proxy = serve(taken)
        environ = {"HTTP_PROXY": f"http://me:s%3Acret@127.0.0.1:{proxy.port}", "NO_PROXY": "other"}
        s = sending("http://collector.example:4248/base", environ=environ)
        s.send(sealed(0))
        assert s.wait(1) == [(0, Outcome.DELIVERED)]
        request = proxy.requests[0]
        assert request.line == ("POST http://collector.example:4248/base/v1/envelopes HTTP/1.1")
        assert request.headers["host"] == "collector.example:4248"
        basic = base64.b64encode(b"me:s:cret").decode()
        assert request.headers["proxy-authorization"] == f"Basic {basic}"

    def test_https_tunnels(self, serve, sending) -> None:
        proxy = serve(lambda _: reply(407, {}))
        environ = {"https_proxy": f"127.0.0.1:{proxy.port}"}
        s = sending("https://collector.example", environ=environ, api_key="sesame-1")
        s.send(sealed(0))
        assert s.wait(1) == [(0, Outcome.RETRY)]
        assert proxy.requests[0].line.startswith("CONNECT collector.example:443 ")
        assert "authorization" not in proxy.requests[0].headers
        assert "407" in (s.reports[0].error or "")

    @pytest.mark.parametrize("bypass", ["*", "127.0.0.1", "example, .0.0.1", "127.0.0.1:{port}"])
    def test_loopback_and_no_proxy_go_direct(self, serve, sending, bypass: str) -> None:
        server, proxy = serve(taken), serve(lambda _: reply(502, {}))
        environ = {
            "HTTP_PROXY": f"http://127.0.0.1:{proxy.port}",
            "NO_PROXY": bypass.format(port=server.port),
        }
        s = sending(url(server), environ=environ)
        s.send(sealed(0))
        assert s.wait(1) == [(0, Outcome.DELIVERED)]
        assert proxy.requests == []

    def test_a_web_server_s_proxy_header_is_not_believed(self, sending) -> None:
        environ = {"HTTP_PROXY": "http://evil.example:1", "REQUEST_METHOD": "GET"}
        connection = sending("http://collector.example", environ=environ).transport._connection
        assert connection._proxy is None


class TestTls:
    @pytest.fixture
    def authority(self) -> trustme.CA:
        return trustme.CA()

    def context(self, authority: trustme.CA, name: str) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(name).configure_cert(context)
        return context

    def test_a_certificate_of_the_given_authority(
        self, serve, sending, authority, tmp_path
    ) -> None:
        authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
        server = serve(taken, tls=self.context(authority, "localhost"))
        s = sending(f"https://localhost:{server.port}", ca_file=str(tmp_path / "ca.pem"))
        s.send(sealed(0))
        assert s.wait(1) == [(0, Outcome.DELIVERED)]

    @pytest.mark.parametrize("wrong", ["authority", "name"])
    def test_an_unknown_authority_or_another_name_is_refused(
        self, serve, sending, authority, tmp_path, wrong: str
    ) -> None:
        name = "another.example" if wrong == "name" else "localhost"
        trusted = trustme.CA() if wrong == "authority" else authority
        trusted.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
        server = serve(taken, tls=self.context(authority, name))
        s = sending(f"https://localhost:{server.port}", ca_file=str(tmp_path / "ca.pem"))
        s.send(sealed(0))
        assert s.wait(1) == [(0, Outcome.RETRY)]
        assert "not trusted" in (s.reports[0].error or "")
        assert server.requests == []
