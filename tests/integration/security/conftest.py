"""A collector with keys in a process of its own: its memory, its log and its life are watched."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path

import orjson
import pytest

from callmeter.collector.keyfile import create_key
from callmeter.ids import uuid7
from callmeter.schema.envelope import Header, encode

PATIENCE_S = 60.0
_PROGRAM = """
import asyncio, logging, sys
from pathlib import Path
from callmeter.collector import keywatch
from callmeter.collector.app import run_collector
from callmeter.collector.config import CollectorConfig
from callmeter.collector.logs import set_up_logs
from callmeter.collector.memory import MemoryAppender

logging.basicConfig(level=logging.DEBUG)
set_up_logs("json")
keywatch.POLL_S = float(sys.argv[2])
config = CollectorConfig(
    port=0, keys_file=Path(sys.argv[1]), header_timeout_s=1.0, body_grace_s=0.5,
    body_timeout_s=20.0, drain_grace_s=0.0,
)
asyncio.run(run_collector(
    MemoryAppender(), config, on_started=lambda url: print(url, flush=True)
))
"""


def envelope(project: str = "shop") -> bytes:
    header = Header(source=uuid7(), seq=0, n=1, sent_us=1, project=project)
    return encode(header, [b'{"kind":"annotation","text":"a payload of hunter2"}'])


@dataclass
class Guarded:
    """The process, its keys, and what it has logged so far."""

    process: subprocess.Popen[bytes]
    port: int
    keys_file: Path
    keys: dict[str, str]
    logged: list[bytes] = field(default_factory=list)

    def post(
        self, path: str, body: object, key: str | None = None, **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        """One request on a connection of its own; a body that is no bytes is sent in chunks."""
        return self.ask("POST", path, body, key, **headers)

    def ask(
        self, method: str, path: str, body: object = None, key: str | None = None, **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if key is not None:
            sent["Authorization"] = f"Bearer {key}"
        connection = HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        try:
            chunked = body is not None and not isinstance(body, bytes)
            connection.request(method, path, body, sent, encode_chunked=chunked)  # type: ignore[arg-type]
            answer = connection.getresponse()
            return answer.status, dict(answer.headers), answer.read()
        finally:
            connection.close()

    def raw(self, data: bytes) -> bytes:
        """What is answered to bytes as they are, until the other side closes."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_S) as conn:
            conn.sendall(data)
            answered = b""
            while piece := conn.recv(65536):
                answered += piece
            return answered

    def rss(self) -> int:
        """Resident bytes of the process."""
        pages = Path(f"/proc/{self.process.pid}/statm").read_text(encoding="ascii").split()[1]
        return int(pages) * 4096

    def serves(self) -> None:
        """It lives, and takes what is good."""
        assert self.process.poll() is None
        status, _, answered = self.post("/v1/envelopes", envelope(), self.keys["shop"])
        assert status == 200, answered

    def told(self) -> str:
        """Its log so far, and nothing in it that was sent."""
        text = b"".join(self.logged).decode()
        for secret in ("hunter2", *self.keys.values()):
            assert secret not in text
        return text

    def dropped(self, reason: str) -> float:
        """How many connections it has cut off for a reason."""
        _, _, text = self.ask("GET", "/metrics", None, self.keys["reads"])
        name = f'callmeter_collector_connections_dropped_total{{reason="{reason}"}} '
        found = [line for line in text.decode().splitlines() if line.startswith(name)]
        return float(found[0].rpartition(" ")[2]) if found else 0.0

    def wait(self, holds) -> None:
        deadline_s = time.monotonic() + PATIENCE_S
        while not holds():
            assert time.monotonic() < deadline_s
            time.sleep(0.05)


@pytest.fixture
def guarded(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Guarded]:
    """One for a test: a request of another test must not disturb its memory or its log.

    A parameter is how often the key file is looked at, in seconds.
    """
    path = tmp_path / "keys.json"
    now_us = time.time_ns() // 1000
    keys = {
        "shop": create_key(path, ["shop"], "write", now_us=now_us, name="shop")[0],
        "other": create_key(path, ["other"], "write", now_us=now_us, name="other")[0],
        "reads": create_key(path, ["*"], "read", now_us=now_us, name="reads")[0],
        "old": create_key(path, ["shop"], "write", now_us=now_us - 2, expires_us=now_us - 1)[0],
    }
    every_s = getattr(request, "param", 1.0)
    with subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, str(path), str(every_s)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        line = process.stdout.readline().decode().strip()
        made = Guarded(process, int(line.rpartition(":")[2] or 0), path, keys)
        log = process.stderr
        reader = threading.Thread(target=lambda: made.logged.extend(iter(log.readline, b"")))
        reader.start()
        try:
            yield made
        finally:
            process.kill()
            process.wait()
            reader.join()
    made.told()  # the secrets are looked for once more


def reason(answered: bytes) -> str:
    return str(orjson.loads(answered)["reason"])
