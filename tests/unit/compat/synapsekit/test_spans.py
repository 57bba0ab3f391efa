"""Span and TraceSpan: fields, life, what reaches callmeter."""

import json
from dataclasses import fields
from datetime import UTC, timedelta

import pytest

import callmeter
from callmeter.compat.synapsekit import DistributedTracer, Span, configure
from callmeter.testing import Capture, capture


@pytest.mark.acceptance(201)
def test_a_span_has_the_documents_fields(callmeter_capture: Capture, spans: list[Span]) -> None:
    assert [field.name for field in fields(Span)] == [
        "span_id",
        "trace_id",
        "parent_span_id",
        "name",
        "start_time",
        "end_time",
        "duration_ms",
        "attributes",
        "events",
        "status",
        "error",
    ]
    tracer = DistributedTracer("svc")
    with tracer.start_span("outer") as outer, tracer.start_span("inner") as inner:
        inner.set_attribute("k", 1)
        inner.add_event("happened")
    by_name = {span.name: span for span in spans}
    span = by_name["inner"]
    assert len(span.span_id) == 16
    assert len(span.trace_id) == 32
    assert span.trace_id == outer.trace_id
    assert span.parent_span_id == outer.span_id
    assert by_name["outer"].parent_span_id is None
    assert span.start_time.tzinfo is UTC
    assert span.attributes["k"] == 1
    assert [event["name"] for event in span.events] == ["happened"]
    assert (span.status, span.error) == ("ok", None)


@pytest.mark.acceptance(202)
def test_duration_and_status_over_a_spans_life(callmeter_capture: Capture) -> None:
    tracer = DistributedTracer("svc")
    open_span = tracer.start_span("work")
    assert open_span.span.end_time is None
    assert open_span.span.duration_ms is None
    assert open_span.span.status == "unset"
    callmeter_capture.clock.advance(0.25)
    open_span.end()
    span = open_span.span
    assert span.end_time is not None
    assert span.end_time - span.start_time == timedelta(seconds=0.25)
    assert span.duration_ms == 250.0
    assert span.status == "ok"
    failed = tracer.start_span("fails")
    with pytest.raises(ValueError, match="no luck"), failed:
        raise ValueError("no luck")
    assert (failed.span.status, failed.span.error) == ("error", "no luck")


@pytest.mark.acceptance(211)
def test_what_is_said_of_a_span_is_in_the_stored_one(callmeter_capture: Capture) -> None:
    tracer = DistributedTracer("svc")
    with tracer.start_span("rag.query") as span:
        span.set_attribute("answer_length", 17)
        span.add_event("retrieved", {"documents": 3})
        span.set_status("error")
        callmeter_capture.clock.advance(1)
    first_end = span.span.end_time
    callmeter_capture.clock.advance(1)
    span.end()
    span.set_attribute("answer_length", 99)
    assert span.span.end_time == first_end
    assert span.span.attributes["answer_length"] == 17
    (call,) = callmeter_capture.calls
    assert call["name"] == "rag.query"
    assert call["latency_us"] == 1_000_000
    assert call["status"] == "error"
    assert call["attributes"]["answer_length"] == "17"
    (event,) = json.loads(call["attributes"]["events"])
    assert (event["name"], event["attributes"]) == ("retrieved", {"documents": 3})
    with pytest.raises(ValueError, match="a status is one of ok, error"):
        span.set_status("fine")


@pytest.mark.acceptance(212)
def test_exceptions_are_events_and_pass_through(callmeter_capture: Capture) -> None:
    tracer = DistributedTracer("svc")
    with tracer.start_span("mended") as mended:
        mended.record_exception(KeyError("gone"))
    (event,) = mended.span.events
    assert event["name"] == "exception"
    assert event["attributes"] == {
        "exception.type": "KeyError",
        "exception.message": "'gone'",
    }
    assert mended.span.status == "ok"
    boom = RuntimeError("boom")
    with pytest.raises(RuntimeError) as caught, tracer.start_span("broken") as broken:
        raise boom
    assert caught.value is boom
    assert (broken.span.status, broken.span.error) == ("error", "boom")
    (event,) = broken.span.events
    assert event["attributes"]["exception.type"] == "RuntimeError"
    stored = {call["name"]: call for call in callmeter_capture.calls}
    assert stored["mended"]["status"] == "ok"
    assert (stored["broken"]["status"], stored["broken"]["error_type"]) == (
        "error",
        "RuntimeError",
    )


def test_spans_hang_together_where_nothing_is_metered(spans: list[Span]) -> None:
    with capture(disabled=True):
        callmeter.init("noop:", disabled=True)
        tracer = DistributedTracer("svc")
        with tracer.start_span("outer") as outer:
            with tracer.start_span("inner"):
                pass
            headers = tracer.inject_context({})
    inner_span, outer_span = spans
    assert inner_span.trace_id == outer_span.trace_id == outer.trace_id
    assert inner_span.parent_span_id == outer.span_id
    assert headers["traceparent"] == f"00-{outer.trace_id}-{outer.span_id}-01"


@pytest.mark.acceptance(226)
def test_the_root_decides_and_children_follow(spans: list[Span]) -> None:
    client = configure("memory:", sample_rate=0.0, handle_signals=False)
    tracer = DistributedTracer("svc")
    with tracer.start_span("root"), tracer.start_span("child"):
        headers = tracer.inject_context({})
    assert spans == []
    assert headers["traceparent"].endswith("-00")
    assert client.flush().accepted == 0
    configure("memory:", sample_rate=1.0, handle_signals=False)
    # Elsewhere the root has decided against: nobody below decides anew.
    context = tracer.extract_context(headers)
    with tracer.start_span("followed", context), tracer.start_span("child"):
        pass
    assert spans == []
    with tracer.start_span("root"), tracer.start_span("child"):
        pass
    assert [span.name for span in spans] == ["child", "root"]
    callmeter.close()


@pytest.mark.acceptance(226)
def test_a_trace_is_recorded_whole_or_not_at_all(spans: list[Span]) -> None:
    configure("memory:", sample_rate=0.5, handle_signals=False)
    tracer = DistributedTracer("svc")
    for _ in range(200):
        with tracer.start_span("root"), tracer.start_span("child"):
            pass
    callmeter.close()
    by_trace: dict[str, list[str]] = {}
    for span in spans:
        by_trace.setdefault(span.trace_id, []).append(span.name)
    assert 0 < len(by_trace) < 200
    assert all(names == ["child", "root"] for names in by_trace.values())


@pytest.mark.acceptance(227)
def test_keys_are_redacted_at_any_depth_and_in_any_case(spans: list[Span]) -> None:
    with capture(redact_keys=["api_key"]) as captured:
        tracer = DistributedTracer("svc")
        with tracer.start_span("work") as span:
            span.set_attribute("API_KEY", "sk-1")
            span.set_attribute("request", {"headers": [{"Api_Key": "sk-2", "kept": "x"}]})
            span.add_event("sent", {"api_key": "sk-3"})
        (call,) = captured.calls
    (seen,) = spans
    assert seen.attributes["API_KEY"] == "[REDACTED]"
    assert seen.attributes["request"] == {"headers": [{"Api_Key": "[REDACTED]", "kept": "x"}]}
    assert seen.events[0]["attributes"] == {"api_key": "[REDACTED]"}
    assert call["attributes"]["API_KEY"] == "[REDACTED]"
    assert '"kept":"x"' in call["attributes"]["request"].replace(" ", "")
    assert "sk-" not in json.dumps(call)
