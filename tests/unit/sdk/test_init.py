"""Where a client sends, and when it does nothing at all."""

import http.server
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import callmeter
from callmeter.errors import ConfigError
from callmeter.sdk import api, connect
from callmeter.sdk.call import NO_CALL
from callmeter.settings import Settings


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No configuration, no default client, and whatever the test makes is closed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CALLMETER_URL", raising=False)
    before = api.swap(None)
    yield
    callmeter.close(0.0)
    api.swap(before)


def healthz(status: int) -> http.server.HTTPServer:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/healthz" else 404)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            """Tests are quiet."""

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    return server


@pytest.mark.parametrize(("status", "answers"), [(200, True), (503, False)])
def test_a_local_collector_is_one_that_says_it_is_well(status: int, answers: bool) -> None:
    server = healthz(status)
    try:
        port = server.server_address[1]
        assert connect.local_collector_answers(port=port) is answers
    finally:
        server.shutdown()
        server.server_close()


def test_a_port_that_is_silent_is_no_collector() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        assert not connect.local_collector_answers(port=silent.getsockname()[1])


def test_without_a_url_the_local_collector_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    server = healthz(200)
    try:
        monkeypatch.setattr(connect, "LOCAL_PORT", server.server_address[1])
        client = callmeter.init()
        assert client.url == f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def test_without_anything_one_warning_and_no_op(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setattr(connect, "LOCAL_PORT", free.getsockname()[1])
    callmeter.init()
    callmeter.metric("m", 1.0)
    assert callmeter.generation(model="m") is NO_CALL
    assert callmeter.flush() == callmeter.FlushResult(True, 0, 0, 0, 0, {})
    assert len(caplog.records) == 1
    assert "nothing is metered" in caplog.records[0].message


def test_the_url_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALLMETER_URL", "memory:")
    assert callmeter.init().url == "memory:"


def test_disabled_means_nothing_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALLMETER_DISABLED", "YES")
    client = callmeter.init("jsonl:calls.jsonl")
    with callmeter.generation(model="m") as call:
        call.usage(1, 1)
        call.set(a=1)
        call.cost("1")
        call.record({})
        call.first_token()
        call.error(ValueError())
        assert (call.id, call.trace_id, call.span_id) == ("", "", "")
    callmeter.metric("m", 1.0)
    callmeter.annotation("a", call=call)
    callmeter.cost("1", call=call, source="s")
    with callmeter.experiment("e") as experiment:
        experiment.metric("m", 1.0)
    assert client.stats().accepted == 0
    client.close()
    assert not Path("calls.jsonl").exists()

    def fn() -> None:
        """A function."""

    assert callmeter.track(fn) is fn


def test_a_url_that_cannot_work_is_an_error_at_once() -> None:
    with pytest.raises(ConfigError, match="unknown kind of URL"):
        callmeter.init("carrier-pigeon:home")


def test_several_clients_side_by_side(tmp_path: Path) -> None:
    one = callmeter.Client(Settings(url=f"jsonl:{tmp_path}/one.jsonl", project="one"))
    two = callmeter.Client(Settings(url=f"jsonl:{tmp_path}/two.jsonl", project="two"))
    one.metric("m", 1.0)
    with two.generation(model="m") as call:
        call.usage(1, 2)
    one.close()
    two.close()
    assert b'"project":"one"' in (tmp_path / "one.jsonl").read_bytes()
    assert b'"kind":"call_end"' in (tmp_path / "two.jsonl").read_bytes()
    assert b'"kind":"call_end"' not in (tmp_path / "one.jsonl").read_bytes()


def test_init_again_closes_the_first(tmp_path: Path) -> None:
    first = callmeter.init(f"jsonl:{tmp_path}/first.jsonl")
    callmeter.metric("m", 1.0)
    callmeter.init("noop:")
    assert b'"name":"m"' in (tmp_path / "first.jsonl").read_bytes()
    assert first.stats().delivered == 1
