"""``/metrics``, ``/healthz`` and ``/readyz`` of a process that serves nothing else.

    GET /metrics   200  Prometheus' text
    GET /healthz   200  the process lives; 503 with the reason: restart it
    GET /readyz    200  it does its work; 503 with the reason: starting, restoring, stopping

For ``callmeter worker``, ``sink`` and ``notify``: a thread beside the work, reading plain numbers.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import TYPE_CHECKING, Self

from callmeter.errors import CannotWriteError, MissingExtraError, UsageError

if TYPE_CHECKING:
    from prometheus_client.registry import Collector

#: Why something does not hold; None if it does.
Reason = Callable[[], str | None]
DEFAULT_HOST = "127.0.0.1"
_IDLE_S = 30.0


def parse_address(text: str) -> tuple[str, int]:
    """``HOST:PORT``, ``:PORT`` or ``PORT``; without a host it is loopback. ``UsageError``."""
    host, _, port = text.rpartition(":")
    if not port.isdecimal() or int(port) > 65535:
        raise UsageError(f"{text!r} is no HOST:PORT to serve metrics at, like 127.0.0.1:9464")
    return host.strip("[]") or DEFAULT_HOST, int(port)


class Monitor:
    """Serves from ``start`` to ``stop``, or as a context manager. Port 0 takes a free one.

    ``collectors`` go into a registry of their own, beside the process's (CPU, memory, files).
    ``MissingExtraError`` without prometheus-client, ``CannotWriteError`` if the port is taken.
    """

    def __init__(
        self,
        address: str,
        collectors: Iterable[Collector] = (),
        *,
        unready: Reason = lambda: None,
        ailing: Reason = lambda: None,
    ) -> None:
        try:
            from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
        except ImportError as exc:
            raise MissingExtraError("prometheus-client", "prometheus") from exc
        self._address = parse_address(address)
        registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        for collector in collectors:
            registry.register(collector)
        self._scrape: Callable[[], bytes] = partial(generate_latest, registry)
        self._answers: dict[str, Reason] = {"/healthz": ailing, "/readyz": unready}
        self._server: ThreadingHTTPServer | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """Where it serves, once started."""
        if self._server is None:
            raise UsageError("the monitor is not started")
        host, port = self._server.server_address[:2]
        text = str(host)
        return f"http://{f'[{text}]' if ':' in text else text}:{port}"

    def start(self) -> None:
        """Listen; returns at once."""
        host, port = self._address
        try:
            self._server = _Server(self._address, self._handler())
        except OSError as exc:
            raise CannotWriteError(f"cannot serve metrics at {host}:{port}: {exc}") from exc
        self._thread = threading.Thread(
            target=self._server.serve_forever, name="callmeter-metrics", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Stop serving. Stopping twice is harmless."""
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def answer(self, path: str) -> tuple[int, str, bytes]:
        """Status, content type and body of a path."""
        if path == "/metrics":
            return 200, "text/plain; version=0.0.4; charset=utf-8", self._scrape()
        reason = self._answers.get(path)
        if reason is None:
            return 404, "application/json", b'{"status":"not found"}\n'
        why = reason()
        body = json.dumps({"status": "ok" if why is None else why}).encode() + b"\n"
        return (200 if why is None else 503), "application/json", body

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        answer = self.answer

        class Handler(BaseHTTPRequestHandler):
            timeout = _IDLE_S

            def do_GET(self) -> None:  # the name is http.server's
                status, kind, body = answer(self.path.partition("?")[0])
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body)

            def do_HEAD(self) -> None:
                self.do_GET()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                """A scrape each few seconds is no news."""

        return Handler


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        if ":" in address[0]:
            import socket

            self.address_family = socket.AF_INET6
        super().__init__(address, handler)
