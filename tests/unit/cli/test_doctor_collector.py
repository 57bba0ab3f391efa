"""The doctor at a collector's door: plain, behind TLS, away, not ready."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import trustme

from callmeter.cli.doctor_collector import look_at_collector
from callmeter.cli.doctor_finding import State

Serve = Callable[[int, ssl.SSLContext | None], str]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts a server that answers everything with one status."""
    servers: list[ThreadingHTTPServer] = []

    def start(status: int, context: ssl.SSLContext | None) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:  # the name is http.server's
                self.send_response(status)
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                """Tests are quiet."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if context is not None:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"{'http' if context is None else 'https'}://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_a_collector_that_is_ready_tells_its_clock_too(serve: Serve) -> None:
    ready, clock = look_at_collector(serve(200, None))
    assert ready.state is State.OK
    assert clock.piece == "clock"
    assert clock.state is State.OK


def test_one_that_is_not_ready_is_wrong(serve: Serve) -> None:
    found = list(look_at_collector(serve(503, None)))
    assert found[0].state is State.WRONG
    assert "not ready (503)" in found[0].detail


def test_tls_is_verified_by_the_authority_that_is_named(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    url = serve(200, context)
    (unknown,) = look_at_collector(url)
    assert unknown.state is State.WRONG
    assert "certificate" in unknown.detail.lower()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("CALLMETER_CA_FILE", str(tmp_path / "ca.pem"))
    assert next(look_at_collector(url)).state is State.OK


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "http://127.0.0.1:nine", "https://[::1"])
def test_what_cannot_be_asked_is_wrong_and_no_crash(url: str) -> None:
    (found,) = look_at_collector(url)
    assert found.state is State.WRONG
