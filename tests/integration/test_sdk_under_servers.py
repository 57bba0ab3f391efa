"""gunicorn and uvicorn workers: every request is metered once, by the worker that served it, also
when the server is told to end while requests come.
"""

from __future__ import annotations

import http.client
import itertools
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
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
    def begin():
        callmeter.init("jsonl:calls.jsonl", flush_delay_s=30.0, {durable})
    if "BEGIN_LATE" not in os.environ:
        begin()

    def app(environ, start_response):
        with callmeter.generation(environ["PATH_INFO"], model="m"):
            start_response("200 OK", [("Content-Type", "text/plain")])
        return [str(os.getpid()).encode()]

    async def asgi(scope, receive, send):
        if scope["type"] == "lifespan":
            await receive()
            if "BEGIN_LATE" in os.environ:
                begin()  # the server has its signal handlers by now
            await send({{"type": "lifespan.startup.complete"}})
            await receive()
            await send({{"type": "lifespan.shutdown.complete"}})
            return
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
    "gunicorn, uvicorn's workers": [
        "gunicorn", "-w", "2", "-k", "uvicorn.workers.UvicornWorker", "app:asgi"
    ],
}  # fmt: skip
DURABLE = "durable=True, spool_dir='spool'"
CLIENTS = 4


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


def wait_until(holds: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def stored(path: Path) -> tuple[list[Header], Counter[str]]:
    headers, names = [], Counter[str]()
    for data in split_envelopes(path.read_bytes()):
        lines = split_lines(data)
        headers.append(decode_header(lines[0]))
        events = [orjson.loads(line) for line in lines[1:]]
        names.update(e["name"] for e in events if e["kind"] == "call_end")
    return headers, names


@contextmanager
def serving(
    tmp_path: Path, name: str, durable: str = "", **environment: str
) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """A server that is up, and its port; it has ended, by itself, when the block has."""
    (tmp_path / "app.py").write_text(textwrap.dedent(APP.format(durable=durable)))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = list(SERVERS[name])
    bind = ["-b", f"127.0.0.1:{port}"] if command[0] == "gunicorn" else ["--port", str(port)]
    server = subprocess.Popen(
        [sys.executable, "-m", *command, *bind],
        cwd=tmp_path,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **environment},
    )
    try:
        wait_until_up(port, server)
        yield port, server
        server.wait(60)
    finally:
        server.kill()
        server.wait()


@pytest.mark.parametrize(
    ("name", "durable"),
    [*((name, "") for name in SERVERS), ("gunicorn", DURABLE), ("uvicorn, one process", DURABLE)],
)
def test_requests_are_metered_once_and_workers_end_cleanly(
    tmp_path: Path, name: str, durable: str
) -> None:
    with serving(tmp_path, name, durable) as (port, server):
        workers = {get(port, f"/{i}") for i in range(REQUESTS)}
        server.send_signal(signal.SIGTERM)
    headers, names = stored(tmp_path / "calls.jsonl")
    assert names == {f"/{i}": 1 for i in range(REQUESTS)}
    assert len({header.source for header in headers}) == len(workers)
    assert sum(header.last for header in headers) == len(workers)
    if durable:
        assert list((tmp_path / "spool").iterdir()) == []


@pytest.mark.parametrize(
    ("name", "environment"),
    [
        ("uvicorn, one process", {}),
        ("uvicorn, one process", {"BEGIN_LATE": "1"}),
        ("uvicorn", {"BEGIN_LATE": "1"}),
        ("gunicorn, uvicorn's workers", {"BEGIN_LATE": "1"}),
    ],
)
def test_told_to_end_under_load_a_server_loses_no_request_that_it_answered(
    tmp_path: Path, name: str, environment: dict[str, str]
) -> None:
    answered: set[str] = set()
    with (
        ThreadPoolExecutor(CLIENTS) as pool,
        serving(tmp_path, name, **environment) as (
            port,
            server,
        ),
    ):
        ending = threading.Event()

        def ask(client: int) -> None:
            for i in itertools.count():
                path = f"/{client}-{i}"
                try:
                    get(port, path)
                except (OSError, http.client.HTTPException):
                    assert ending.is_set(), "a request failed before the end"
                    return  # it has stopped answering
                answered.add(path)

        clients = [pool.submit(ask, client) for client in range(CLIENTS)]
        wait_until(lambda: len(answered) >= REQUESTS or any(c.done() for c in clients))
        ending.set()
        server.send_signal(signal.SIGTERM)
        server.wait(60)
        for client in clients:
            client.result(60)
    headers, names = stored(tmp_path / "calls.jsonl")
    assert set(names.values()) == {1}
    assert answered <= names.keys()
    assert len(names) <= len(answered) + CLIENTS  # served, and its answer got lost
    assert sum(header.last for header in headers) == len({header.source for header in headers})
