"""The SDK never hurts its host: contained and counted in production, raised under test."""

import logging
import subprocess
import sys

import pytest

import callmeter
from callmeter.sdk.containment import LOG_EVERY_S, Complaints
from callmeter.testing import Capture, ManualClock, capture, raising
from callmeter.transports.protocol import Outcome


def test_bad_values_do_not_reach_the_host_in_production() -> None:
    with capture() as captured, raising(False):
        before = captured.client.stats().contained
        callmeter.metric("m", "abc")  # type: ignore[arg-type]
        callmeter.metric("m", float("nan"))
        callmeter.metric("m", float("inf"))
        callmeter.metric("m", 1.0, ts=-5)
        callmeter.cost("not money", source="bill")
        callmeter.cost(0.5, source="bill")  # type: ignore[arg-type]
        with callmeter.generation(model="m", estimate="dear") as call:
            call.cost("dear")
        assert captured.client.stats().contained == before + 7
        assert captured.events == []


def test_the_same_mistakes_are_raised_under_test(captured: Capture) -> None:
    with pytest.raises(ValueError, match="abc"):
        callmeter.metric("m", "abc")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="not finite"):
        callmeter.metric("m", float("nan"))
    with pytest.raises(TypeError, match="float"):
        callmeter.cost(0.5, source="bill")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="USD"):
        callmeter.generation(model="m", estimate="dear")


def test_one_line_a_minute_whatever_goes_wrong(caplog: pytest.LogCaptureFixture) -> None:
    clock = ManualClock()
    complaints = Complaints(clock.monotonic_s)
    for _ in range(100):
        complaints.warn("trouble")
    clock.advance(LOG_EVERY_S)
    complaints.warn("trouble")
    assert [record.message for record in caplog.records] == [
        "trouble",
        "trouble (99 more since the last such line)",
    ]
    assert {record.name for record in caplog.records} == {"callmeter"}


def test_a_backend_that_is_away_is_one_line_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    with capture(max_queue_bytes=64 * 1024) as captured, caplog.at_level(logging.WARNING):
        captured.transport.outcome = Outcome.RETRY
        for _ in range(50):
            for _ in range(100):
                callmeter.metric("m", 1.0)
            captured.client.flush(0.0)
            captured.clock.advance(0.5)
        assert len(caplog.records) == 1
        captured.clock.advance(60)
        captured.client.flush(0.0)
        assert len(caplog.records) == 2
        assert "queue_full" in caplog.records[0].message
        assert "not delivered yet" in caplog.records[1].message


def test_nothing_is_metered_before_init_and_that_is_said_once() -> None:
    program = """
import callmeter
for _ in range(3):
    callmeter.metric("m", 1.0)
    with callmeter.generation(model="m") as call:
        call.usage(1, 2)
assert callmeter.flush().accepted == 0
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stderr == "nothing is metered: callmeter.init() was not called\n"


def test_the_thread_survives_a_transport_that_breaks_the_rules() -> None:
    class Rude(callmeter.testing.CaptureTransport):  # type: ignore[name-defined,misc]
        def poll(self, timeout_s: float) -> None:
            if len(self.sent) == 1 and not self.delivered:
                self.delivered.append(self.sent[0])
                raise RuntimeError("rude")
            super().poll(timeout_s)

    transport = Rude()
    client = callmeter.Client(
        callmeter.Settings(flush_delay_s=0.0, handle_signals=False), transport=transport
    )
    with raising(False):
        client.metric("first", 1.0)
        client.flush(0.5)
        client.metric("second", 1.0)
        assert client.flush(10.0).ok
    client.close()
