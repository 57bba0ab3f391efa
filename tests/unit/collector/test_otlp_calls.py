"""Spans to calls: names of today and of before, identity, what is kept and what never is."""

from __future__ import annotations

import dataclasses
from typing import Any

import orjson
import pytest

from callmeter.collector import otlp_json
from callmeter.ids import span_id
from callmeter.schema.envelope import decode_header, split_lines
from callmeter.spans.calls import MAX_AGE_US, SpanError, call_id, call_of, check
from callmeter.spans.names import is_genai
from callmeter.spans.nesting import Nesting
from callmeter.spans.span import BadRequestError, Span, SpanEvent

START = 1_790_000_000_000_000_000
NOW_US = START // 1000 + 5_000_000
TRACE, SPAN, PARENT = "5b8efff798038103d269b633813fc60c", "eee19b7ec3c1b174", "eee19b7ec3c1b173"


def a_span(**changes: Any) -> Span:
    span = Span(
        trace_id=TRACE, span_id=SPAN, parent_id=PARENT, name="chat", start_ns=START,
        end_ns=START + 2_000_000_500, failed=False, message="", attributes={}, events=(),
        resource={"service.name": "bot"}, scope="lib",
    )  # fmt: skip
    return dataclasses.replace(span, **changes)


def event(span: Span, **how: Any) -> dict[str, Any]:
    _, line = split_lines(call_of(span, "p", **how).data)
    return dict(orjson.loads(line))


@pytest.mark.parametrize(
    ("attributes", "operation", "provider", "model", "usage"),
    [
        (
            {"gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai",
             "gen_ai.request.model": "m", "gen_ai.usage.input_tokens": 5,
             "gen_ai.usage.output_tokens": 7},
            "chat", "openai", "m", {"input": 5, "output": 7},
        ),
        (
            {"gen_ai.operation.name": "text_completion", "gen_ai.system": "az.ai.openai",
             "gen_ai.response.model": "m", "gen_ai.usage.prompt_tokens": 5,
             "gen_ai.usage.completion_tokens": 7},
            "text_completion", "az.ai.openai", "m", {"input": 5, "output": 7},
        ),
        (
            {"llm.request.type": "chat", "gen_ai.system": "Anthropic", "gen_ai.request.model": "m",
             "gen_ai.usage.prompt_tokens": 5, "gen_ai.usage.completion_tokens": 7,
             "gen_ai.usage.cache_read_input_tokens": 90, "llm.usage.total_tokens": 12},
            "chat", "Anthropic", "m", {"input": 95, "output": 7, "cache_read": 90},
        ),
        (
            {"openinference.span.kind": "LLM", "llm.provider": "openai", "llm.model_name": "m",
             "llm.token_count.prompt": 5, "llm.token_count.completion": 7,
             "llm.token_count.completion_details.reasoning": 3},
            "chat", "openai", "m", {"input": 5, "output": 7, "reasoning": 3},
        ),
        (
            {"gen_ai.operation.name": "embeddings", "gen_ai.request.model": "e",
             "gen_ai.usage.input_tokens": 5.0},
            "embeddings", "", "e", {"input": 5},
        ),
        ({"gen_ai.operation.name": "chat", "gen_ai.request.model": "m"}, "chat", "", "m", None),
        ({"gen_ai.request.model": "m", "gen_ai.usage.output_tokens": 1}, "chat", "", "m",
         {"output": 1}),
        ({"traceloop.span.kind": "workflow"}, "invoke_workflow", "", "", None),
        ({"openinference.span.kind": "TOOL"}, "execute_tool", "", "", None),
        ({"http.request.method": "GET"}, "span", "", "", None),
        ({"gen_ai.operation.name": "chat", "gen_ai.usage.input_tokens": -1}, "chat", "", "", None),
        ({"gen_ai.operation.name": "chat", "gen_ai.usage.input_tokens": True},
         "chat", "", "", None),
        ({"gen_ai.operation.name": 5}, "span", "", "", None),
    ],
)  # fmt: skip
def test_names(attributes, operation, provider, model, usage) -> None:
    line = event(a_span(attributes=attributes))
    assert line["operation"] == operation
    assert line.get("provider", "") == provider
    assert line.get("model", "") == model
    assert line.get("usage") == usage


def test_identity_and_bytes_are_the_spans_own() -> None:
    span = a_span()
    first, again = call_of(span, "p"), call_of(a_span(), "p")
    assert first == again
    header = decode_header(split_lines(first.data)[0])
    assert (header.source, header.seq, header.n, header.last) == (first.source, 0, 1, True)
    assert header.sent_us == span.end_ns // 1000
    assert call_of(span, "q").source != first.source
    assert call_of(a_span(span_id=PARENT), "p").source != first.source
    assert call_of(a_span(trace_id=SPAN * 2), "p").source != first.source
    line = event(span)
    assert (line["trace_id"], line["parent_span_id"]) == (TRACE, PARENT)
    assert span_id(line["call_id"]) == SPAN
    assert line["call_id"] == call_id(span)
    assert int(line["call_id"].replace("-", "")[:12], 16) == START // 1_000_000
    assert (line["started_us"], line["latency_us"]) == (START // 1000, 2_000_000)


def test_errors_and_first_tokens() -> None:
    raised = SpanEvent(
        "exception", START + 5, {"exception.type": "Boom", "exception.message": "it broke"}
    )
    line = event(a_span(failed=True, events=(raised,)))
    assert (line["status"], line["error_type"], line["error_message"]) == (
        "error", "Boom", "it broke",
    )  # fmt: skip
    line = event(a_span(failed=True, message="x" * 5000, attributes={"error.type": "429"}))
    assert (line["error_type"], len(line["error_message"])) == ("429", 2000)
    assert "error_message" not in event(a_span(events=(raised,)))
    seconds = {"gen_ai.response.time_to_first_chunk": 0.25}
    assert event(a_span(attributes=seconds))["ttft_us"] == 250_000
    assert "ttft_us" not in event(a_span(attributes={"gen_ai.response.time_to_first_chunk": 250}))
    token = SpanEvent("gen_ai.first_token", START + 1_000_000)
    assert event(a_span(events=(token,)))["ttft_us"] == 1000


def test_what_was_said_is_never_kept() -> None:
    content = dict.fromkeys(
        (
            "gen_ai.prompt.0.content", "gen_ai.completion.0.content", "gen_ai.input.messages",
            "gen_ai.output.messages", "gen_ai.system_instructions", "gen_ai.tool.call.arguments",
            "gen_ai.tool.call.result", "input.value", "output.value", "traceloop.entity.input",
            "llm.input_messages.0.message.content", "llm.prompts.0",
        ),
        "hunter2",
    )  # fmt: skip
    kept = {"gen_ai.request.temperature": 0.5, "server.port": 443, "a.list": ["x", 1, None]}
    line = event(a_span(attributes={**content, **kept}))
    assert "hunter2" not in str(line)
    assert line["attributes"] == {
        "callmeter.via": "otlp", "otel.scope.name": "lib", "gen_ai.request.temperature": "0.5",
        "server.port": "443", "a.list": '["x",1,null]',
    }  # fmt: skip


def test_attributes_are_bounded() -> None:
    many = {f"k{n}": "v" * 5000 for n in range(500)}
    call = call_of(a_span(attributes=many, name="n" * 5000), "p")
    assert len(call.data) < 64 * 1024
    line = event(a_span(attributes=many, name="n" * 5000))
    assert line["attributes"]["callmeter.attributes_cut"] == "true"
    assert len(line["name"]) == 256


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"trace_id": ""}, "trace id"),
        ({"trace_id": "0" * 32}, "trace id"),
        ({"trace_id": "g" * 32}, "trace id"),
        ({"span_id": "ab"}, "span id"),
        ({"parent_id": "0" * 16}, "parent"),
        ({"end_ns": START - 1}, "ends after"),
        ({"start_ns": 0}, "after 1970"),
        ({"end_ns": 2**63}, "2100|ends"),
        (
            {"start_ns": START - 2 * MAX_AGE_US * 1000, "end_ns": START - MAX_AGE_US * 1001},
            "30 days",
        ),
        ({"end_ns": START + 700_000_000_000}, "ahead"),
    ],
)
def test_what_is_no_span(changes: dict[str, Any], what: str) -> None:
    check(a_span(), NOW_US)
    with pytest.raises(SpanError, match=what):
        check(a_span(**changes), NOW_US)


def test_a_copy_and_a_wrapper_carry_no_usage() -> None:
    asked = {"gen_ai.operation.name": "chat", "gen_ai.usage.input_tokens": 5}
    copy = call_of(a_span(attributes=asked, resource={"callmeter.exported": True}), "p")
    assert copy.kind == "exported"
    line = orjson.loads(split_lines(copy.data)[1])
    assert (line["operation"], line.get("usage")) == ("exported_span", None)
    assert line["attributes"]["gen_ai.usage.input_tokens"] == "5"
    line = event(a_span(attributes=asked), wraps=True)
    assert (line["operation"], line.get("usage")) == ("invoke_model", None)


def chat(number: int, parent: int, end: int, model: str = "m", operation: str = "chat") -> Span:
    asked = {"gen_ai.operation.name": operation, "gen_ai.request.model": model}
    return a_span(
        span_id=f"{number:016x}", parent_id=f"{parent:016x}", attributes=asked, end_ns=START + end
    )


def test_the_innermost_of_nested_calls_is_billed() -> None:
    nesting = Nesting()
    outer, between, inner = chat(1, 9, 30), chat(2, 1, 20, operation="node"), chat(3, 2, 10)
    wrapper = {(TRACE, outer.span_id)}
    assert nesting.wrappers("p", [outer, between, inner]) == wrapper
    assert nesting.wrappers("p", [outer]) == wrapper  # sent again
    assert nesting.wrappers("q", [outer]) == set()
    assert nesting.wrappers("q", [inner]) == set()
    assert nesting.wrappers("q", [between]) == set()
    assert nesting.wrappers("q", [outer]) == wrapper  # over three batches


def test_what_a_tool_or_another_model_does_is_its_own() -> None:
    tool = [chat(1, 9, 30), chat(2, 1, 20, operation="execute_tool"), chat(3, 2, 10)]
    assert Nesting().wrappers("p", tool) == set()
    assert Nesting().wrappers("p", [chat(1, 9, 30, "large"), chat(3, 1, 10, "small")]) == set()


def test_memory_of_nesting_is_bounded() -> None:
    nesting = Nesting(most=10)
    nesting.wrappers("p", [chat(n, n + 1000, n) for n in range(1, 100)])
    assert nesting.wrappers("p", [chat(1001, 9999, 200)]) == set()
    assert nesting.wrappers("p", [chat(1099, 9999, 200)]) == {(TRACE, f"{1099:016x}")}


@pytest.mark.parametrize(
    "body",
    [
        b"", b"[]", b"{", b'{"resourceSpans": 1}', b'{"resourceSpans": [1]}',
        b'{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId": 5}]}]}]}',
        b'{"resourceSpans":[{"scopeSpans":[{"spans":[{"startTimeUnixNano": "x"}]}]}]}',
        b'{"resourceSpans":[{"resource":{"attributes":[{"value":{"doubleValue":"hunter2"}}]}}]}',
    ],
)  # fmt: skip
def test_json_that_is_no_request(body: bytes) -> None:
    with pytest.raises(BadRequestError) as caught:
        otlp_json.read_spans(body)
    assert "hunter2" not in str(caught.value)


def test_nested_values_end_somewhere() -> None:
    value: Any = {"stringValue": "deep"}
    for _ in range(30):
        value = {"arrayValue": {"values": [value]}}
    span = {"spanId": "x", "attributes": [{"key": "a", "value": value}]}
    body = orjson.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]})
    (found,) = otlp_json.read_spans(body)
    assert "deep" not in str(found.attributes)


def test_which_spans_speak_of_models() -> None:
    assert is_genai({"gen_ai.system": "openai"})
    assert not is_genai({"http.request.method": "GET"})


async def test_the_route(start) -> None:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    c = await start(otlp_spans="genai")
    now_ns = c.clock.now_us() * 1000
    request = ExportTraceServiceRequest()
    spans = request.resource_spans.add().scope_spans.add().spans
    for number in range(3):
        span = spans.add(
            trace_id=bytes.fromhex(TRACE), span_id=bytes([number + 1]) * 8,
            start_time_unix_nano=now_ns - 1000, end_time_unix_nano=now_ns,
        )  # fmt: skip
        if number:
            span.attributes.add(key="gen_ai.system").value.string_value = "openai"
    kind = {"Content-Type": "application/x-protobuf"}
    async with c.session.post(
        c.url + "/v1/traces", data=request.SerializeToString(), headers=kind
    ) as answer:
        assert (answer.status, await answer.read()) == (200, b"")
    assert len(c.appender.values()) == 2  # the one that speaks of no model is left out
    assert c.context.metrics.value("callmeter_collector_otlp_spans_total", result="left_out") == 1
    async with c.session.post(c.url + "/v1/traces", data=b"\xff\xff", headers=kind) as answer:
        assert (answer.status, answer.content_type) == (400, "application/x-protobuf")
        assert (await answer.read()).startswith(b"\x08\x03\x12")
    c.appender.away = "the log is away"
    async with c.session.post(
        c.url + "/v1/traces", data=request.SerializeToString(), headers=kind
    ) as answer:
        assert answer.status == 503
        assert "Retry-After" in answer.headers
    async with c.session.post(
        c.url + "/v1/traces", data=b"x", headers={"Content-Type": "text/plain"}
    ) as answer:
        assert answer.status == 415
