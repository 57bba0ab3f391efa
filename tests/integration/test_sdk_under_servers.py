"""gunicorn and uvicorn workers: every request is metered once, by the worker that served it."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import textwrap
import time
import urllib.request
from collections import Counter
from pathlib import Path

import orjson
import pytest

from callmeter.schema.envelope import Header, decode_header, split_envelopes, split_lines

pytestmark = pytest.mark.slow
pytest.importorskip("gunicorn")
pytest.importorskip("uvicorn")

REQUESTS = 100
APP = """
    import os
    import callmeter
    callmeter.init("jsonl:calls.jsonl", flush_delay_s=30.0, {durable})

    def app(environ, start_response):
        with callmeter.generation(environ["PATH_INFO"], model="m"):
            start_response("200 OK", [("Content-Type", "text/plain")])
        return [str(os.getpid()).encode()]

    async def asgi(scope, receive, send):
        if scope["type"] != "http":
            raise NotImplementedError
        async with callmeter.generation(scope["path"], model="m"):
            await send({{"type": "http.response.start", "status": 200, "headers": []}})
        await send({{"type": "http.response.body", "body": str(os.getpid()).encode()}})
"""
SERVERS = {
    "gunicorn": ["gunicorn", "-w", "3", "--graceful-timeout", "20", "app:app"],
    "gunicorn, preloaded": ["gunicorn", "-w", "3", "--preload", "app:app"],
    "gunicorn, threads": ["gunicorn", "-w", "2", "--threads", "4", "--preload", "app:app"],
    "uvicorn": ["uvicorn", "--workers", "3", "--log-level", "warning", "app:asgi"],
    "uvicorn, one process": ["uvicorn", "--log-level", "warning", "app:asgi"],
}


def get(port: int, path: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=20) as reply:
        body: bytes = reply.read()
        return body.decode()


def wait_until_up(port: int, server: subprocess.Popen[bytes]) -> None:
    deadline_s = time.monotonic() + 60
    while True:
        assert server.poll() is None, "the server ended"
        assert time.monotonic() < deadline_s, "the server did not come up"
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return


def stored(path: Path) -> tuple[list[Header], Counter[str]]:
    headers, names = [], Counter[str]()
    for data in split_envelopes(path.read_bytes()):
        lines = split_lines(data)
        headers.append(decode_header(lines[0]))
        events = [orjson.loads(line) for line in lines[1:]]
        names.update(e["name"] for e in events if e["kind"] == "call_end")
    return headers, names


@pytest.mark.parametrize("durable", ["", "durable=True, spool_dir='spool'"])
@pytest.mark.parametrize("name", SERVERS)
def test_requests_are_metered_once_and_workers_end_cleanly(
    tmp_path: Path, name: str, durable: str
) -> None:
    (tmp_path / "app.py").write_text(textwrap.dedent(APP.format(durable=durable)))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = list(SERVERS[name])
    bind = ["-b", f"127.0.0.1:{port}"] if command[0] == "gunicorn" else ["--port", str(port)]
    server = subprocess.Popen(
        [sys.executable, "-m", *command, *bind], cwd=tmp_path, stderr=subprocess.DEVNULL
    )
    try:
        wait_until_up(port, server)
        workers = {get(port, f"/{i}") for i in range(REQUESTS)}
        server.send_signal(signal.SIGTERM)
        server.wait(60)
    finally:
        server.kill()
        server.wait()
    headers, names = stored(tmp_path / "calls.jsonl")
    assert names == {f"/{i}": 1 for i in range(REQUESTS)}
    assert len({header.source for header in headers}) == len(workers)
    assert sum(header.last for header in headers) == len(workers)
    if durable:
        assert list((tmp_path / "spool").iterdir()) == []
