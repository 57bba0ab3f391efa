"""OpenTelemetry's own SDK and exporter, and documents in OTLP's JSON, through a real ``up``."""

from __future__ import annotations

import time
from decimal import Decimal
from http.client import HTTPConnection
from urllib.parse import urlsplit

import orjson
import pytest
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult

from support.embedded import Pipeline
from support.otlp_sending import MODEL, exporter, shape, spans_of, tracing

pytestmark = pytest.mark.slow


def post(pipeline: Pipeline, path: str, body: bytes, kind: str) -> tuple[int, str, bytes]:
    parts = urlsplit(pipeline.url)
    connection = HTTPConnection(parts.hostname or "", parts.port, timeout=60)
    try:
        connection.request("POST", path, body, {"Content-Type": kind})
        answer = connection.getresponse()
        return answer.status, answer.headers["Content-Type"], answer.read()
    finally:
        connection.close()


def an_agent(provider: TracerProvider, tokens: int = 1000) -> str:
    """A request with an agent that asks a model, uses a tool, and asks again; the trace's id."""
    tracer = provider.get_tracer("my.instrumentation")
    with tracer.start_as_current_span("POST /answer") as root:  # noqa: SIM117  # the tree as drawn
        with tracer.start_as_current_span(
            "invoke_agent helper",
            attributes={"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": "helper"},
        ):
            with tracer.start_as_current_span(
                f"chat {MODEL}",
                attributes={
                    "gen_ai.operation.name": "chat",
                    "gen_ai.provider.name": "openai",
                    "gen_ai.request.model": MODEL,
                    "gen_ai.input.messages": '[{"role":"user","content":"a secret"}]',
                },
            ) as chat:
                chat.set_attribute("gen_ai.usage.input_tokens", tokens)
                chat.set_attribute("gen_ai.usage.output_tokens", 100)
                chat.set_attribute("gen_ai.response.finish_reasons", ["tool_calls"])
            with tracer.start_as_current_span(
                "execute_tool search",
                attributes={"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "search"},
            ):
                pass
            with (
                pytest.raises(TimeoutError),
                tracer.start_as_current_span(
                    f"chat {MODEL}",
                    attributes={
                        # The names of before: gen_ai.system, prompt and completion tokens.
                        "gen_ai.operation.name": "chat",
                        "gen_ai.system": "openai",
                        "gen_ai.request.model": MODEL,
                        "gen_ai.usage.prompt_tokens": 2000,
                        "gen_ai.usage.completion_tokens": 0,
                    },
                ),
            ):
                raise TimeoutError("the model took too long")
    return format(root.get_span_context().trace_id, "032x")


AGENT = (
    "span",
    "POST /answer",
    [
        (
            "invoke_agent",
            "invoke_agent helper",
            [
                ("chat", f"chat {MODEL}", []),
                ("execute_tool", "execute_tool search", []),
                ("chat", f"chat {MODEL}", []),
            ],
        )
    ],
)


@pytest.mark.parametrize("compression", [Compression.NoCompression, Compression.Gzip])
def test_the_real_exporter(embedded: Pipeline, project: str, compression: Compression) -> None:
    provider, kept = tracing(project)
    trace_id = an_agent(provider)
    sender = exporter(embedded, compression=compression)
    assert sender.export(kept.get_finished_spans()) is SpanExportResult.SUCCESS
    embedded.wait(lambda: spans_of(embedded, project) == 5)
    trace = embedded.queries.trace(trace_id, project=project)
    assert [shape(root) for root in trace.roots] == [AGENT]
    # 3000 input and 100 output tokens.
    assert trace.cost_usd == Decimal("0.000510")
    first, _tool, second = trace.roots[0].children[0].children
    assert (first.call.input_tokens, first.call.output_tokens) == (1000, 100)
    assert (second.call.status, second.call.error_type) == ("error", "TimeoutError")
    by_id = {format(s.context.span_id, "016x"): s for s in kept.get_finished_spans()}
    for call in (first.call, second.call):
        sent = by_id[call.span_id]
        assert call.trace_id == trace_id
        assert call.parent_span_id == format(sent.parent.span_id, "016x")
        assert call.latency_us == (sent.end_time - sent.start_time) // 1000
    figures = embedded.queries.report(project=project).totals
    assert (figures.calls, figures.failures) == (2, 1)
    assert (figures.input_tokens, figures.output_tokens) == (3000, 100)
    assert figures.cost_usd == Decimal("0.000510")
    stored = embedded.store.query(
        "SELECT count() FROM calls WHERE project = {p:String} AND "
        "(toString(attributes) LIKE '%secret%' OR inputs LIKE '%secret%')",
        {"p": project},
    )
    assert stored.rows[0][0] == 0


def test_the_batching_processor_as_programs_use_it(embedded: Pipeline, project: str) -> None:
    provider = TracerProvider(
        resource=Resource.create({"callmeter.project": project, "service.name": "bot"})
    )
    provider.add_span_processor(BatchSpanProcessor(exporter(embedded), max_export_batch_size=7))
    traces = [an_agent(provider) for _ in range(10)]
    provider.shutdown()
    embedded.wait(lambda: spans_of(embedded, project) == 50)
    for trace_id in traces:
        trace = embedded.queries.trace(trace_id, project=project)
        assert [shape(root) for root in trace.roots] == [AGENT]
    assert embedded.queries.report(project=project).totals.calls == 20


def test_sent_again_in_whatever_batches_counts_once(embedded: Pipeline, project: str) -> None:
    provider, kept = tracing(project)
    for _ in range(4):
        an_agent(provider)
    spans = list(kept.get_finished_spans())
    sender = exporter(embedded)
    batches: list[list[ReadableSpan]] = [spans, spans, spans[::-1], spans[3:11]]
    batches += [[span] for span in spans]
    for batch in batches:
        assert sender.export(batch) is SpanExportResult.SUCCESS
    sent = sum(map(len, batches))
    embedded.wait(
        lambda: (
            embedded.store.query(
                "SELECT count() FROM envelopes WHERE project = {p:String}", {"p": project}
            ).rows[0][0]
            == sent
        )
    )
    embedded.wait(lambda: spans_of(embedded, project) == 20)
    figures = embedded.queries.report(project=project).totals
    assert (figures.calls, figures.input_tokens) == (8, 12_000)
    assert not embedded.queries.gaps(project=project)


def test_json_as_the_specification_has_it(embedded: Pipeline, project: str) -> None:
    start_ns = time.time_ns() - 2_000_000_000
    trace_id, chat_id, root_id = (
        "5B8EFFF798038103D269B633813FC60C",
        "EEE19B7EC3C1B174",
        "EEE19B7EC3C1B173",
    )

    def attribute(key: str, **value: object) -> dict:
        return {"key": key, "value": value}

    document = {
        "resourceSpans": [
            {
                "resource": {
                    "attributes": [
                        attribute("service.name", stringValue="my.service"),
                        attribute("deployment.environment.name", stringValue="prod"),
                        attribute("callmeter.project", stringValue=project),
                        attribute("callmeter.tag.team", stringValue="search"),
                    ]
                },
                "scopeSpans": [
                    {
                        "scope": {"name": "my.library", "version": "1.0.0"},
                        "spans": [
                            {
                                "traceId": trace_id,
                                "spanId": root_id,
                                "name": "work",
                                "kind": 2,
                                "startTimeUnixNano": str(start_ns),
                                "endTimeUnixNano": str(start_ns + 1_500_000_000),
                            },
                            {
                                "traceId": trace_id,
                                "spanId": chat_id,
                                "parentSpanId": root_id,
                                "name": "chat claude",
                                "kind": 3,
                                "startTimeUnixNano": str(start_ns + 100_000_000),
                                "endTimeUnixNano": str(start_ns + 1_100_000_000),
                                "attributes": [
                                    attribute("gen_ai.operation.name", stringValue="chat"),
                                    attribute("gen_ai.provider.name", stringValue="anthropic"),
                                    attribute(
                                        "gen_ai.request.model",
                                        stringValue="claude-3-5-sonnet-latest",
                                    ),
                                    attribute("gen_ai.usage.input_tokens", intValue="1000"),
                                    attribute("gen_ai.usage.output_tokens", intValue=10),
                                    attribute(
                                        "gen_ai.usage.cache_read.input_tokens", intValue="400"
                                    ),
                                    attribute(
                                        "gen_ai.response.time_to_first_chunk", doubleValue=0.25
                                    ),
                                    attribute(
                                        "gen_ai.response.finish_reasons",
                                        arrayValue={"values": [{"stringValue": "stop"}]},
                                    ),
                                ],
                                "status": {"code": 1},
                            },
                        ],
                    }
                ],
            }
        ]
    }
    for _ in range(2):
        status, kind, body = post(
            embedded, "/v1/traces", orjson.dumps(document), "application/json"
        )
        assert (status, kind, body) == (200, "application/json", b"{}")
    embedded.wait(lambda: spans_of(embedded, project) == 2)
    trace = embedded.queries.trace(trace_id.lower(), project=project)
    (root,) = trace.roots
    (chat,) = root.children
    call = chat.call
    assert (call.span_id, call.parent_span_id) == (chat_id.lower(), root_id.lower())
    assert (call.input_tokens, call.output_tokens, call.latency_us) == (1000, 10, 1_000_000)
    # 600 × 3, 400 cached × 0.30 and 10 × 15 USD per million.
    assert trace.cost_usd == Decimal("0.002070")
    row = embedded.store.query(
        "SELECT service, environment, ttft_us, finish_reason, tags['team'] FROM calls "
        "WHERE project = {p:String} AND operation = 'chat'",
        {"p": project},
    ).rows[0]
    assert list(row) == ["my.service", "prod", 250_000, "stop", "search"]


def test_partial_success_says_how_many_and_why(embedded: Pipeline, project: str) -> None:
    provider, kept = tracing(project)
    an_agent(provider)
    good = kept.get_finished_spans()
    old = ReadableSpan(
        name="old",
        context=good[0].context,
        resource=provider.resource,
        start_time=1_000_000_000,
        end_time=2_000_000_000,
    )
    from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

    body = encode_spans([*good, old]).SerializeToString()
    status, kind, answered = post(embedded, "/v1/traces", body, "application/x-protobuf")
    assert (status, kind) == (200, "application/x-protobuf")
    partial = ExportTraceServiceResponse.FromString(answered).partial_success
    assert partial.rejected_spans == 1
    assert partial.error_message == "1 × the span ended more than 30 days ago"
    embedded.wait(lambda: spans_of(embedded, project) == 5)
    for path in ("/v1/metrics", "/v1/logs"):
        status, _, answered = post(embedded, path, b"", "application/x-protobuf")
        assert status == 404
        assert b"traces alone" in answered
