"""The feeds' thread: server-sent events from a real socket, cut off and back, and forks."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import msgspec
import orjson
import pytest

from callmeter import BudgetExceeded, BudgetGuard
from callmeter.schema.budgets import Budget
from callmeter.sdk.client import Client
from callmeter.settings import Settings

DEFINITION = msgspec.to_builtins(Budget(id="b", limit_pico="100", action="stop"))


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline, "did not happen within 20 s"
        time.sleep(0.01)


class Collector(ThreadingHTTPServer):
    """Streams a snapshot, then ``comments``, until told to end; notes what it was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[tuple[str, str | None]] = []
        self.status = 200
        self.ending = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Collector

    def log_message(self, *_: object) -> None:
        """Nothing."""

    def do_GET(self) -> None:
        ending = self.server.ending
        self.server.asked.append((self.path, self.headers.get("Authorization")))
        self.send_response(self.server.status)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        data = orjson.dumps({"log": "l", "definitions": [DEFINITION], "statuses": []})
        self.wfile.write(b"event: snapshot\nda")
        self.wfile.flush()  # an event may come in any number of pieces
        self.wfile.write(b"ta: " + data + b"\n\n: alive\n\n")
        self.wfile.flush()
        ending.wait(30)


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.ending.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def client(collector: Collector) -> Iterator[Client]:
    made = Client(
        Settings(url=collector.url, api_key="secret-key", handle_signals=False, heartbeat_s=0.0)
    )
    yield made
    made.close(0.0)


def test_a_stream_is_followed_and_begun_anew_when_it_ends(collector: Collector, client: Client):
    guard = BudgetGuard(budget="b", on_stale="stop", client=client)
    assert guard.wait_ready(20)
    guard.check()
    assert collector.asked == [("/v1/budgets/status?stream&budget=b", "Bearer secret-key")]
    ended, collector.ending = collector.ending, threading.Event()
    ended.set()
    until(lambda: len(collector.asked) == 2)
    guard.check()


@pytest.mark.parametrize("away", [False, True])
def test_a_closed_client_follows_no_more(collector: Collector, client: Client, away: bool):
    """Neither over its open stream nor by asking a collector that is away for ever."""
    guard = BudgetGuard(budget="b", client=client)
    assert guard.wait_ready(20)
    if away:
        collector.ending.set()
        collector.shutdown()
        collector.server_close()
    client.close(0.0)
    until(lambda: not [t for t in threading.enumerate() if t.name == "callmeter-budget"])


def test_a_collector_that_refuses_leaves_the_guard_without_a_status(
    collector: Collector, client: Client, caplog
):
    collector.status = 401
    strict = BudgetGuard(budget="b", on_stale="stop", client=client)
    until(lambda: "answers 401" in caplog.text)
    assert "secret-key" not in caplog.text
    with pytest.raises(BudgetExceeded, match="on_stale"):
        strict.check()
    BudgetGuard(budget="b", client=client).check()


def test_guards_of_one_budget_share_one_stream(collector: Collector, client: Client):
    guards = [BudgetGuard(budget="b", client=client) for _ in range(3)]
    assert all(guard.wait_ready(20) for guard in guards)
    assert len({id(guard.shared) for guard in guards}) == 1
    assert len(collector.asked) == 1


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_follows_for_itself(collector: Collector, client: Client):
    guard = BudgetGuard(budget="b", client=client)
    assert guard.wait_ready(20)
    child = os.fork()
    if not child:
        threading.Event().wait(30)  # until it is killed
        os._exit(0)
    try:
        until(lambda: len(collector.asked) == 2)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
