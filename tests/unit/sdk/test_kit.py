"""The test kit as its users meet it."""

import pytest

import callmeter
from callmeter.sdk import api
from callmeter.testing import Capture, CaptureTransport, ManualClock, capture, raising
from callmeter.testing.plugin import callmeter_capture  # noqa: F401  # the fixture under test


def test_the_fixture(callmeter_capture: Capture) -> None:  # noqa: F811
    with callmeter.generation("answer", model="m") as call:
        callmeter_capture.clock.advance(1.5)
        call.usage(input=12, output=7)
    callmeter.metric("score", 0.5)
    (event,) = callmeter_capture.calls
    assert event["usage"] == {"input": 12, "output": 7}
    assert event["latency_us"] == 1_500_000
    assert [m["value"] for m in callmeter_capture.metrics] == [0.5]


def test_capturing_puts_the_program_s_own_client_back() -> None:
    before = api.default_client()
    with capture(project="mine") as outer:
        with capture() as inner:
            callmeter.metric("inner", 1.0)
        callmeter.metric("outer", 1.0)
        assert [m["name"] for m in inner.transport.events if m["kind"] == "metric"] == ["inner"]
        assert [m["name"] for m in outer.metrics] == ["outer"]
        assert outer.transport.headers[0].project == "mine"
    assert api.default_client() is before


def test_capturing_ignores_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALLMETER_PROJECT", "elsewhere")
    monkeypatch.setenv("CALLMETER_DISABLED", "1")
    with capture() as captured:
        callmeter.metric("m", 1.0)
        assert captured.client.settings.project == "default"
        assert len(captured.metrics) == 1


def test_errors_are_raised_inside_and_as_before_outside() -> None:
    with capture():
        with raising(False):
            callmeter.metric("m", float("nan"))
        with pytest.raises(ValueError, match="finite"):
            callmeter.metric("m", float("nan"))


def test_a_transport_that_holds_reports_nothing() -> None:
    with capture() as captured:
        transport: CaptureTransport = captured.transport
        transport.holding = True
        callmeter.metric("m", 1.0)
        assert captured.client.flush(0.0).pending == 1
        transport.holding = False
        assert captured.client.flush(0.0).ok


def test_the_clock_is_the_manual_one() -> None:
    with capture() as captured:
        assert isinstance(captured.clock, ManualClock)
