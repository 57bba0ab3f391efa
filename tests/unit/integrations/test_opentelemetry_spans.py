"""The span processor, under the real OpenTelemetry SDK."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import Tracer

from callmeter.integrations.opentelemetry_spans import CallmeterSpanProcessor
from callmeter.sdk import api
from callmeter.testing import Capture, capture

CHAT = {
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "openai",
    "gen_ai.request.model": "gpt-4o-mini",
    "gen_ai.usage.input_tokens": 12,
    "gen_ai.usage.output_tokens": 7,
    "gen_ai.response.finish_reasons": ["stop"],
    "gen_ai.input.messages": "a secret",
}


@pytest.fixture
def kept() -> Iterator[Capture]:
    with capture() as kept:
        yield kept


def tracer(**how: Any) -> Tracer:
    provider = TracerProvider(resource=Resource.create({"service.name": "bot"}))
    provider.add_span_processor(CallmeterSpanProcessor(**how))
    return provider.get_tracer("an.instrument")


def test_a_model_call_with_its_ids(kept: Capture) -> None:
    traced = tracer()
    with (
        traced.start_as_current_span("agent", attributes={"gen_ai.operation.name": "invoke_agent"}),
        traced.start_as_current_span("chat", attributes=CHAT) as span,
    ):
        span.add_event("gen_ai.first_token")
    chat, agent = kept.calls
    ids = span.get_span_context()
    assert chat["trace_id"] == agent["trace_id"] == f"{ids.trace_id:032x}"
    assert chat["call_id"].replace("-", "")[16:] == f"{ids.span_id:016x}"
    assert chat["parent_span_id"] == agent["call_id"].replace("-", "")[16:]
    assert (chat["provider"], chat["model"]) == ("openai", "gpt-4o-mini")
    assert chat["usage"] == {"input": 12, "output": 7}
    assert chat["finish_reason"] == "stop"
    assert chat["attributes"]["callmeter.via"] == "span_processor"
    assert "ttft_us" in chat
    assert "a secret" not in str(kept.events)
    assert agent["operation"] == "invoke_agent"


def test_of_calls_within_one_another_the_innermost_is_billed(kept: Capture) -> None:
    traced = tracer()
    with (
        traced.start_as_current_span("outer", attributes=CHAT),
        traced.start_as_current_span("inner", attributes=CHAT),
    ):
        pass
    inner, outer = kept.calls
    assert (inner["operation"], inner["usage"]) == ("chat", {"input": 12, "output": 7})
    assert outer["operation"] == "invoke_model"
    assert "usage" not in outer


def test_failures_and_spans_of_other_things(kept: Capture) -> None:
    traced = tracer()
    with pytest.raises(ValueError, match="no"), traced.start_as_current_span("c", attributes=CHAT):
        raise ValueError("no")
    with traced.start_as_current_span("GET", attributes={"http.request.method": "GET"}):
        pass
    (call,) = kept.calls
    assert (call["status"], call["error_type"]) == ("error", "ValueError")
    with tracer(every_span=True).start_as_current_span("GET", attributes={"k": [1, 2]}):
        pass
    assert kept.calls[1]["operation"] == "span"
    assert kept.calls[1]["attributes"]["k"] == "[1,2]"


def test_a_copy_that_callmeter_exported_is_left_out(kept: Capture) -> None:
    resource = Resource.create({"callmeter.exported": True})
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(CallmeterSpanProcessor())
    with provider.get_tracer("t").start_as_current_span("chat", attributes=CHAT):
        pass
    assert kept.calls == []


def test_without_a_client_nothing_happens_and_a_flush_delivers(kept: Capture) -> None:
    processor = CallmeterSpanProcessor()
    provider = TracerProvider()
    provider.add_span_processor(processor)
    client = api.swap(None)
    try:
        with provider.get_tracer("t").start_as_current_span("chat", attributes=CHAT):
            pass
    finally:
        api.swap(client)
    with provider.get_tracer("t").start_as_current_span("chat", attributes=CHAT):
        pass
    assert processor.force_flush()
    assert len(kept.calls) == 1
