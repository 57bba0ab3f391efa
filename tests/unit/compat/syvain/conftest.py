"""A collector that answers as it is told, and remembers every request."""

from __future__ import annotations

import contextlib
import json
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from callmeter.compat.syvain import Collector

Event = dict[str, Any]


@dataclass
class Request:
    """One request as it came; ``events`` are the lines of an envelope."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    events: list[Event] = field(default_factory=list)


class Stub:
    """``answers`` are the statuses of the next writes, one a request; then ``status`` for all.

    ``refuses`` tells events for which the whole envelope is answered with 400.
    """

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.answers: deque[int] = deque()
        self.status = 200
        self.created_status = 201
        self.refuses: Callable[[Event], bool] = lambda event: False
        self.folders: list[Event] = []
        self.token = ""  # what writes must carry, if anything
        self.fresh = "fresh-credential"
        self.delivered: list[Event] = []
        self.gate = threading.Event()  # cleared: writes are not answered
        self.gate.set()
        self._lock = threading.Lock()
        handler = type("Handler", (_Handler,), {"stub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def close(self) -> None:
        """No longer there: connections are refused. Twice is as good as once."""
        if not self._thread.is_alive():
            return
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def of(self, path: str) -> list[Request]:
        return [r for r in self.requests if r.path.partition("?")[0] == path]

    @property
    def writes(self) -> list[Request]:
        """Envelopes, but for the goodbye of a client that closes."""
        return [r for r in self.of("/v1/envelopes") if r.events[0]["kind"] != "heartbeat"]

    def answer(self, request: Request) -> tuple[int, Any]:
        with self._lock:
            self.requests.append(request)
            path = request.path.partition("?")[0]
            if path == "/v1/experiments":
                return self.created_status, self._created(request)
            if path == "/v1/folders":
                return 200, {"folders": self.folders}
            if path == "/v1/credentials/refresh":
                self.token = self.fresh
                return 200, {"credential": self.fresh, "expires_in_s": 900}
            return self._write(request)

    def _created(self, request: Request) -> Any:
        body = json.loads(request.body)
        made = {"id": "exp-" + body["slug"], "slug": body["slug"], "url": "/experiments/1"}
        return {"experiment": {**made, "project": "stub"}, "error": "on purpose"}

    def _write(self, request: Request) -> tuple[int, Any]:
        header, *lines = request.body.splitlines()
        request.events = [json.loads(line) for line in lines]
        status = self.answers.popleft() if self.answers else self.status
        if self.token and request.headers["authorization"] != f"Bearer {self.token}":
            return 401, {"error": "expired"}
        if any(map(self.refuses, request.events)):
            return 400, {"error": "line 1: not to my taste"}
        if status != 200:
            return status, {"error": f"told to say {status}"}
        self.delivered += [e for e in request.events if e["kind"] != "heartbeat"]
        head = json.loads(header)
        place = {"source": head["source"], "seq": head["seq"], "partition": 0, "offset": 0}
        return 200, {"results": [place]}


class _Handler(BaseHTTPRequestHandler):
    stub: Stub
    protocol_version = "HTTP/1.1"
    wbufsize = 65536  # head and body in one packet

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        if self.path == "/v1/envelopes":
            self.stub.gate.wait(30)
        status, answer = self.stub.answer(Request(self.command, self.path, headers, body))
        data = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        with contextlib.suppress(ConnectionError):  # somebody has not waited for it
            self.wfile.write(data)
            self.wfile.flush()

    do_GET = do_POST  # noqa: N815  # http.server's name

    def log_message(self, *_args: object) -> None:
        """Quiet."""


@pytest.fixture
def stub() -> Iterator[Stub]:
    server = Stub()
    yield server
    server.close()


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("URL", "API_KEY", "PROJECT", "DISABLED", "CONFIG"):
        monkeypatch.delenv(f"CALLMETER_{name}", raising=False)
    monkeypatch.delenv("SYVAIN_METRICS_API_KEY", raising=False)


@pytest.fixture
def pauses() -> list[float]:
    """Pauses between tries, in seconds: noted, not slept."""
    return []


@pytest.fixture
def make(stub: Stub, pauses: list[float]) -> Iterator[Callable[..., Collector]]:
    """Collectors over the stub whose background stays asleep unless a test wants it."""
    made: list[Collector] = []

    def collector(**options: Any) -> Collector:
        options = {"flush_delay_seconds": 3600.0, "sleep": pauses.append, **options}
        made.append(Collector("ak_test_key", stub.url, **options))
        return made[-1]

    yield collector
    stub.status, stub.token = 200, ""
    stub.refuses = lambda event: False
    for each in made:
        each.close(timeout_s=2.0)
