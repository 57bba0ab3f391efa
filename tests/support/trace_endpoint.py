"""An endpoint for the Monitor hook: keeps what is posted, and misbehaves when told."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

_PATIENCE_S = 20.0


class TraceEndpoint:
    """``traces`` in order of arrival; ``status`` is answered; ``hang()`` answers nobody until
    ``let_go()``.
    """

    def __init__(self) -> None:
        self.traces: list[dict[str, Any]] = []
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.status = 200
        self._changed = threading.Condition()
        self._answering = threading.Event()
        self._answering.set()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def hang(self) -> None:
        self._answering.clear()

    def let_go(self) -> None:
        self._answering.set()

    def wait_for(self, number: int) -> list[dict[str, Any]]:
        """The traces, once there are so many."""
        with self._changed:
            came = self._changed.wait_for(lambda: len(self.traces) >= number, timeout=_PATIENCE_S)
            assert came, f"{len(self.traces)} of {number} traces came"
            return list(self.traces)

    def of(self, event: str) -> list[dict[str, Any]]:
        return [trace for trace in self.traces if trace["event"] == event]

    def close(self) -> None:
        self.let_go()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                with endpoint._changed:
                    endpoint.requests.append((self.path, dict(self.headers.items())))
                    endpoint.traces.append(json.loads(body))
                    endpoint._changed.notify_all()
                endpoint._answering.wait()
                self.send_response(endpoint.status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *args: object) -> None:
                """Quiet."""

        return Handler


@pytest.fixture
def endpoint() -> Iterator[TraceEndpoint]:
    served = TraceEndpoint()
    yield served
    served.close()


def refusing_url() -> str:
    """An address where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


def wait_until(holds: Any) -> None:
    """Wait for something that is about to happen in another thread."""
    deadline_s = time.monotonic() + _PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline_s, "it did not happen"
        time.sleep(0.01)
