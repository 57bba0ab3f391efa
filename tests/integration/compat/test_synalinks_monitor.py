"""How the Monitor hook sends: over a real socket, to endpoints that answer, hang or are away."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
import threading
import tracemalloc
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from callmeter.compat import synalinks
from callmeter.compat.synalinks.hooks import Monitor
from support import synalinks_standins as engine
from support.embedded import Pipeline
from support.monitored import base, echo, own_endpoint, watched
from support.synalinks_standins import DataModel, synalinks_engine
from support.trace_endpoint import TraceEndpoint, endpoint, refusing_url, wait_until

__all__ = ["base", "endpoint", "own_endpoint", "synalinks_engine"]  # fixtures


@pytest.mark.acceptance(42)
def test_a_hanging_endpoint_holds_up_no_call(base: TraceEndpoint) -> None:
    base.hang()
    program = watched(echo)
    answer = asyncio.run(program(DataModel(q=1)))  # returns although nothing was answered
    assert answer.get_json() == {"q": 1}
    base.wait_for(1)
    assert program.hooks[0].stats().sent == 0


@pytest.mark.acceptance(42)
def test_call_begin_arrives_while_the_call_still_runs(base: TraceEndpoint) -> None:
    seen: list[list[str]] = []

    async def until_told(*args: Any) -> Any:
        traces = await asyncio.to_thread(base.wait_for, 1)
        seen.append([trace["event"] for trace in traces])
        return args[0]

    asyncio.run(watched(until_told)(DataModel(q=1)))
    assert seen == [["call_begin"]]


@pytest.mark.acceptance(43)
def test_a_hung_send_ends_at_its_timeout_with_one_log_line(
    base: TraceEndpoint, caplog: pytest.LogCaptureFixture
) -> None:
    assert Monitor().timeout == 5
    base.hang()
    monitor = Monitor(timeout=0.3)
    with caplog.at_level(logging.ERROR):
        monitor.on_call_begin("c", DataModel(q=1))
        base.wait_for(1)
        assert monitor.flush(10.0), "the send never ended"
    errors = [record.message for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == 1
    assert "no answer within 0.3 s" in errors[0]
    assert monitor.stats().failed == 1


@pytest.mark.slow
@pytest.mark.acceptance(43)
def test_the_default_timeout_of_5_s_is_the_one_that_is_used(
    base: TraceEndpoint, caplog: pytest.LogCaptureFixture
) -> None:
    base.hang()
    monitor = Monitor()
    with caplog.at_level(logging.ERROR):
        monitor.on_call_begin("c", DataModel(q=1))
        assert monitor.flush(15.0), "the send never ended"
    assert [r.levelname for r in caplog.records] == ["ERROR"]
    assert "no answer within 5 s" in caplog.text


@pytest.mark.acceptance(44)
@pytest.mark.parametrize(
    ("kind", "says"),
    [("refused", "refused"), ("500", "HTTP 500"), ("dns", "host name is not known")],
)
def test_transport_errors_are_logged_and_change_no_result(
    kind: str, says: str, endpoint: TraceEndpoint, caplog: pytest.LogCaptureFixture
) -> None:
    endpoint.status = 500
    urls = {"refused": refusing_url(), "500": endpoint.url, "dns": "http://nowhere.invalid"}
    synalinks.set_api_base(urls[kind])
    program = watched(echo)
    with caplog.at_level(logging.ERROR):
        answer = asyncio.run(program(DataModel(q=1)))
        assert program.hooks[0].flush(20.0)
    assert answer.get_json() == {"q": 1}
    assert says in caplog.text.lower() or says in caplog.text
    stats = program.hooks[0].stats()
    assert (stats.submitted, stats.failed, stats.sent) == (2, 2, 0)


@pytest.mark.acceptance(45)
def test_the_api_key_is_sent_verbatim(base: TraceEndpoint) -> None:
    synalinks.set_api_key("sk-1 verbatim")
    asyncio.run(watched(echo)(DataModel(q=1)))
    base.wait_for(2)
    assert [headers["Authorization"] for _, headers in base.requests] == ["sk-1 verbatim"] * 2


@pytest.mark.acceptance(45)
def test_explicit_headers_take_the_keys_place(base: TraceEndpoint) -> None:
    synalinks.set_api_key("sk-1 verbatim")
    asyncio.run(watched(echo, headers={"X-Team": "blue"})(DataModel(q=1)))
    base.wait_for(2)
    for _, headers in base.requests:
        assert headers["X-Team"] == "blue"
        assert "Authorization" not in headers


@pytest.mark.acceptance(46)
def test_every_module_emits_after_the_switch_and_none_before(
    base: TraceEndpoint, synalinks_engine: ModuleType
) -> None:
    inner = engine.Module(name="inner")
    program = engine.Program(inner, [inner], name="outer")  # made before the switch
    asyncio.run(program(DataModel(q=1)))
    monitor = synalinks.enable_observability()
    assert monitor.stats().submitted == 0
    asyncio.run(program(DataModel(q=2)))
    traces = base.wait_for(4)
    assert sorted((trace["module_name"], trace["event"]) for trace in traces) == [
        ("inner", "call_begin"),
        ("inner", "call_end"),
        ("outer", "call_begin"),
        ("outer", "call_end"),
    ]
    assert {trace["inputs"]["data"][0]["q"] for trace in base.of("call_begin")} == {2}


def test_a_module_with_a_monitor_of_its_own_is_told_once(
    base: TraceEndpoint, synalinks_engine: ModuleType
) -> None:
    monitor = synalinks.enable_observability()
    asyncio.run(watched(echo)(DataModel(q=1)))
    assert monitor.flush(10.0)
    assert monitor.stats().submitted == 2  # both share one endpoint, and its counters


@pytest.mark.acceptance(47)
def test_the_configured_base_url_plus_trace_is_posted_to(base: TraceEndpoint) -> None:
    synalinks.set_api_base(base.url + "/team/a")
    asyncio.run(watched(echo)(DataModel(q=1)))
    base.wait_for(2)
    assert {path for path, _ in base.requests} == {"/team/a/trace"}


@pytest.mark.acceptance(47)
def test_the_default_base_url_is_the_local_collector() -> None:
    assert synalinks.api_base() == "http://localhost:4248"
    assert Monitor().endpoint == "http://localhost:4248"


@pytest.mark.acceptance(48)
def test_an_end_without_its_begin_is_sent_with_duration_0(base: TraceEndpoint) -> None:
    monitor = Monitor()
    monitor.set_module(engine.Module(name="late"))
    monitor.on_call_end("never-began", DataModel(a=1))
    (end,) = base.wait_for(1)
    assert (end["call_id"], end["duration"], end["success"]) == ("never-began", 0.0, True)


_EXITING = """
import sys
from callmeter.compat import synalinks
from callmeter.compat.synalinks.hooks import Monitor
from support.synalinks_standins import DataModel, Module
synalinks.set_api_base(sys.argv[1])
monitor = Monitor()
monitor.set_module(Module(name="m"))
for n in range(50):
    monitor.on_call_begin(f"c{n}", DataModel(n=n))
    monitor.on_call_end(f"c{n}", DataModel(n=n))
"""


@pytest.mark.acceptance(49)
def test_a_process_that_closes_with_100_events_in_flight_loses_none(
    endpoint: TraceEndpoint, tmp_path: Path
) -> None:
    endpoint.hang()
    tests = Path(__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, "-X", "dev", "-W", "error", "-c", _EXITING, endpoint.url],
        env={**os.environ, "PYTHONPATH": str(tests)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        endpoint.wait_for(1)  # the rest is queued: nobody has been answered yet
        endpoint.let_go()
        _, err = process.communicate(timeout=60)
    assert process.returncode == 0
    assert err == "", "a warning, for example of an unclosed connection"
    ids = Counter((trace["call_id"], trace["event"]) for trace in endpoint.traces)
    assert len(endpoint.traces) == 100
    assert set(ids.values()) == {1}


@pytest.mark.acceptance(50)
def test_sync_code_in_a_plain_thread_needs_no_loop(base: TraceEndpoint) -> None:
    monitor = Monitor()
    monitor.set_module(engine.Module(name="sync"))
    failures: list[Exception] = []

    def work() -> None:
        try:
            monitor.on_call_begin("c", DataModel(q=1))
            monitor.on_call_end("c", DataModel(q=2))
        except Exception as exc:  # noqa: BLE001  # whatever it is, it is the test's failure
            failures.append(exc)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert failures == []
    assert [trace["event"] for trace in base.wait_for(2)] == ["call_begin", "call_end"]


@pytest.mark.acceptance(51)
def test_memory_stays_bounded_over_100000_calls_to_an_endpoint_that_is_away(
    base: TraceEndpoint,
) -> None:
    base.hang()
    bound = 1_000_000
    monitor = Monitor(timeout=60, max_queue_bytes=bound)
    monitor.set_module(engine.Module(name="m", description="d" * 200))
    most = 0
    tracemalloc.start()
    for n in range(100_000):
        monitor.on_call_begin(f"c{n}")
        monitor.on_call_end(f"c{n}")
        if n % 1000 == 0:
            most = max(most, monitor.stats().pending_bytes)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    stats = monitor.stats()
    assert 0 < most <= bound
    assert held < 4 * bound  # bodies and what Python adds to each
    assert stats.submitted == 200_000
    assert set(stats.dropped) == {"queue_full"}
    assert stats.dropped["queue_full"] > 190_000
    assert stats.sent + stats.failed + stats.pending + sum(stats.dropped.values()) == 200_000
    base.let_go()
    assert monitor.flush(30.0)


def test_the_hook_reaches_callmeters_own_collector(embedded: Pipeline, project: str) -> None:
    synalinks.set_api_base(embedded.url)
    program = engine.Program(echo, name=project, hooks=[Monitor()])
    asyncio.run(program(DataModel(q=1)))
    embedded.wait(lambda: len(embedded.queries.calls(filters={"name": project})) == 1)
    (row,) = embedded.queries.calls(filters={"name": project})
    assert (row.operation, row.node, row.status) == ("node", project, "ok")
    assert row.cost_usd is None


def test_a_closed_lane_thread_is_started_again(base: TraceEndpoint) -> None:
    monitor = Monitor()
    monitor.on_call_begin("a")
    base.wait_for(1)
    wait_until(lambda: monitor.stats().sent == 1)
    monitor.on_call_begin("a")
    assert len(base.wait_for(2)) == 2
