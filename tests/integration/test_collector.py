"""The collector as a process of its own, over the embedded log: signals, kills, restarts."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path

import pytest

from callmeter.ids import uuid7
from callmeter.log.sqlite_log import SqliteLog
from callmeter.schema.envelope import decode_header, split_lines
from callmeter.transports.factory import open_transport
from callmeter.transports.options import TransportOptions
from callmeter.transports.protocol import Outcome
from support.shipping import Shipper, envelope

pytestmark = pytest.mark.slow

_PROGRAM = """
import asyncio, sys
from callmeter.collector.app import run_collector
from callmeter.collector.config import CollectorConfig
from callmeter.log.sqlite_appender import SqliteAppender
from callmeter.log.sqlite_log import SqliteLog

async def main():
    log = SqliteLog(sys.argv[1])
    config = CollectorConfig(port=int(sys.argv[2]), drain_timeout_s=10.0)
    await run_collector(
        SqliteAppender(log), config, on_started=lambda url: print(url, flush=True)
    )
    log.close()
    print("drained", flush=True)

asyncio.run(main())
"""


class Process:
    """A collector on a fixed port, over one log, that may be started again."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, str(self._path), str(self.port)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline().strip() == self.url

    def kill(self) -> None:
        self.process.kill()
        self._reap()

    def terminate(self) -> tuple[int, str]:
        self.process.send_signal(signal.SIGTERM)
        return self._reap()

    def _reap(self) -> tuple[int, str]:
        told, _ = self.process.communicate(timeout=30)
        return self.process.returncode, told.strip()

    def logged(self) -> list[tuple[str, int]]:
        log = SqliteLog(self._path)
        try:
            records = [
                record
                for partition in range(log.partitions)
                for record in log.read("events", partition, 0, max_records=1_000_000)
            ]
        finally:
            log.close()
        headers = [decode_header(split_lines(record.value or b"")[0]) for record in records]
        return [(header.source, header.seq) for header in headers]


@pytest.fixture
def collector(tmp_path: Path) -> Iterator[Process]:
    made = Process(tmp_path / "log.db")
    yield made
    if made.process.poll() is None:
        made.kill()


def shipper(url: str) -> Shipper:
    return Shipper(open_transport(url, settings=TransportOptions(timeout_s=10.0, environ={})))


def test_killed_again_and_again_it_never_loses_what_it_acknowledged(collector: Process) -> None:
    s = shipper(collector.url)
    sources = [uuid7() for _ in range(4)]
    sent = [envelope(seq, source=source, pad=500) for seq in range(500) for source in sources]
    kills, stop = [], threading.Event()

    def killer() -> None:
        while not stop.wait(0.15) and len(kills) < 6:
            acknowledged = sum(r.outcome is Outcome.DELIVERED for r in list(s.reports))
            collector.kill()
            kills.append(acknowledged)
            collector.start()

    thread = threading.Thread(target=killer)
    thread.start()
    chunks = [sent[at : at + 100] for at in range(0, len(sent), 100)]
    retries = 0
    for chunk in chunks:
        retries += s.deliver(chunk)
        time.sleep(0.05)
    stop.set()
    thread.join()
    s.transport.close(5.0)
    code, _ = collector.terminate()
    logged = collector.logged()
    print(f"\n  injected: {len(kills)} kills, {retries} retries, {len(logged) - len(sent)} twice")
    assert code == 0
    assert len(kills) >= 3
    assert set(logged) == {(e.source, e.seq) for e in sent}


def test_sigterm_finishes_what_is_in_hand_and_refuses_what_is_new(collector: Process) -> None:
    one = envelope(0, pad=1000)
    conn = HTTPConnection("127.0.0.1", collector.port, timeout=20)
    conn.putrequest("POST", "/v1/envelopes")
    conn.putheader("Content-Length", str(len(one.data)))
    conn.endheaders()
    conn.send(one.data[:100])
    in_hand = b"callmeter_collector_requests_in_flight 2"
    wait_until(lambda: in_hand in get(collector.port, "/metrics"))
    collector.process.send_signal(signal.SIGTERM)
    # Unready first; what is new is told to come back, and the listener goes last.
    wait_until(lambda: status(collector.port, "GET", "/readyz") == (503, None))
    assert status(collector.port, "POST", "/v1/envelopes") == (503, "2")
    assert status(collector.port, "GET", "/healthz") == (200, None)
    conn.send(one.data[100:])
    answer = conn.getresponse()
    assert answer.status == 200
    assert answer.headers["Connection"] == "close"
    assert collector._reap() == (0, "drained")
    assert refused(collector.port)
    assert collector.logged() == [(one.source, 0)]


def test_a_port_that_is_taken_is_said_in_one_line(collector: Process, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, str(tmp_path / "other.db"), str(collector.port)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.stderr.splitlines()[-1].startswith("callmeter.errors.ConfigError: cannot listen on")


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")  # it is the point
def test_a_fork_while_sending_breaks_nothing(collector: Process) -> None:
    s = shipper(collector.url)
    parent, child_source = uuid7(), uuid7()
    s.deliver([envelope(seq, source=parent) for seq in range(10)])
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            s.transport.close(1.0)
            own = shipper(collector.url)
            own.deliver([envelope(seq, source=child_source) for seq in range(10)])
            own.transport.close(5.0)
            code = 0
        finally:
            os._exit(code)
    s.deliver([envelope(seq, source=parent) for seq in range(10, 20)])
    assert os.waitpid(pid, 0)[1] == 0
    s.transport.close(5.0)
    collector.terminate()
    logged = collector.logged()
    expected = [(parent, seq) for seq in range(20)] + [(child_source, seq) for seq in range(10)]
    assert sorted(logged) == sorted(expected)


def get(port: int, path: str) -> bytes:
    conn = HTTPConnection("127.0.0.1", port, timeout=10)
    conn.request("GET", path)
    try:
        return conn.getresponse().read()
    finally:
        conn.close()


def status(port: int, method: str, path: str) -> tuple[int, str | None]:
    """Status and Retry-After."""
    conn = HTTPConnection("127.0.0.1", port, timeout=10)
    conn.request(method, path)
    try:
        answer = conn.getresponse()
        return answer.status, answer.headers["Retry-After"]
    finally:
        conn.close()


def refused(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=10).close()
    except ConnectionRefusedError:
        return True
    return False


def wait_until(what: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 20
    while not what():
        assert time.monotonic() < deadline_s
        time.sleep(0.02)
