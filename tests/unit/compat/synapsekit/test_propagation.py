"""DistributedTracer: W3C and B3 headers."""

import re

import pytest

from callmeter.compat.synapsekit import DistributedTracer
from callmeter.testing import Capture

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.mark.acceptance(207)
def test_w3c_is_injected_beside_other_headers(callmeter_capture: Capture) -> None:
    tracer = DistributedTracer("svc")
    assert tracer.inject_context({"a": "b"}) == {"a": "b"}
    with tracer.start_span("work") as span:
        headers = tracer.inject_context({"Authorization": "Bearer x"})
    assert headers["Authorization"] == "Bearer x"
    assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-01", headers["traceparent"])
    assert headers["traceparent"] == f"00-{span.trace_id}-{span.span_id}-01"
    (call,) = callmeter_capture.calls
    assert call["trace_id"] == span.trace_id
    assert call["call_id"].replace("-", "")[16:] == span.span_id


@pytest.mark.acceptance(208)
@pytest.mark.parametrize("name", ["traceparent", "Traceparent", "TRACEPARENT"])
def test_w3c_is_extracted_in_any_case(callmeter_capture: Capture, name: str) -> None:
    tracer = DistributedTracer("svc")
    incoming = {name: f"00-{TRACE}-{PARENT}-01", "TraceState": "vendor=1,other=2"}
    context = tracer.extract_context(incoming)
    with tracer.start_span("child", parent_context=context) as span:
        with tracer.start_span("grandchild"):
            outgoing = tracer.inject_context({})
        assert span.trace_id == TRACE
        assert span.span.parent_span_id == PARENT
    assert outgoing["tracestate"] == "vendor=1,other=2"
    assert outgoing["traceparent"].startswith(f"00-{TRACE}-")
    child = callmeter_capture.calls[-1]
    assert (child["trace_id"], child["parent_span_id"]) == (TRACE, PARENT)


@pytest.mark.acceptance(209)
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"traceparent": ""},
        {"traceparent": "00-abc-def-01"},
        {"traceparent": f"00-{TRACE}-{PARENT}"},
        {"traceparent": f"00-{'0' * 32}-{PARENT}-01"},
        {"traceparent": f"00-{TRACE}-{'0' * 16}-01"},
        {"traceparent": f"ff-{TRACE}-{PARENT}-01"},
        {"traceparent": f"00-{TRACE}-{PARENT}-01-more"},
    ],
)
def test_w3c_that_is_none_begins_a_new_trace(callmeter_capture: Capture, headers) -> None:
    tracer = DistributedTracer("svc")
    context = tracer.extract_context(headers)
    assert context is None
    with tracer.start_span("root", parent_context=context) as span:
        assert span.trace_id not in (TRACE, "0" * 32)
        assert span.span.parent_span_id is None


@pytest.mark.acceptance(210)
def test_b3_is_injected(callmeter_capture: Capture) -> None:
    tracer = DistributedTracer("svc", propagation_format="b3")
    with tracer.start_span("work") as span:
        headers = tracer.inject_context({})
    assert headers == {
        "X-B3-TraceId": span.trace_id,
        "X-B3-SpanId": span.span_id,
        "X-B3-Sampled": "1",
    }


@pytest.mark.acceptance(210)
@pytest.mark.parametrize(
    ("headers", "trace_id", "sampled"),
    [
        ({"X-B3-TraceId": TRACE, "X-B3-SpanId": PARENT, "X-B3-Sampled": "1"}, TRACE, True),
        ({"x-b3-traceid": TRACE, "x-b3-spanid": PARENT, "x-b3-sampled": "0"}, TRACE, False),
        ({"X-B3-TraceId": TRACE[:16], "X-B3-SpanId": PARENT}, "0" * 16 + TRACE[:16], True),
        ({"b3": f"{TRACE}-{PARENT}-1"}, TRACE, True),
        ({"B3": f"{TRACE}-{PARENT}-0"}, TRACE, False),
        ({"b3": f"{TRACE}-{PARENT}-d-05e3ac9a4f6e3b90"}, TRACE, True),
        ({"b3": f"{TRACE[:16]}-{PARENT}"}, "0" * 16 + TRACE[:16], True),
    ],
)
def test_b3_is_extracted_from_several_headers_or_one(
    callmeter_capture: Capture, headers, trace_id, sampled
) -> None:
    tracer = DistributedTracer("svc", propagation_format="b3")
    context = tracer.extract_context(headers)
    with tracer.start_span("child", parent_context=context) as span:
        assert span.trace_id == trace_id
        assert span.span.parent_span_id == PARENT
        assert span.sampled is sampled


@pytest.mark.acceptance(210)
@pytest.mark.parametrize(
    "headers",
    [{}, {"b3": "0"}, {"b3": "nonsense"}, {"X-B3-TraceId": TRACE}, {"b3": f"{'0' * 32}-{PARENT}"}],
)
def test_b3_that_is_none_begins_a_new_trace(headers) -> None:
    assert DistributedTracer("svc", propagation_format="b3").extract_context(headers) is None


@pytest.mark.acceptance(210)
def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(ValueError, match="a propagation format is one of w3c, b3, not 'jaeger'"):
        DistributedTracer("svc", propagation_format="jaeger")


def test_a_dict_that_is_no_context_begins_a_new_trace(callmeter_capture: Capture) -> None:
    with DistributedTracer("svc").start_span("root", parent_context={"x": 1}) as span:
        assert span.span.parent_span_id is None


def test_a_header_in_another_case_is_replaced(callmeter_capture: Capture) -> None:
    tracer = DistributedTracer("svc")
    with tracer.start_span("work"):
        headers = tracer.inject_context({"Traceparent": "stale"})
    assert list(headers) == ["traceparent"]
