"""OpenTelemetry's own SDK and exporter, and documents in OTLP's JSON, through a real ``up``."""

from __future__ import annotations

import time
from decimal import Decimal
from http.client import HTTPConnection
from urllib.parse import urlsplit

import orjson
import pytest
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

import callmeter
from callmeter.integrations.opentelemetry import SpanBridge
from callmeter_sinks.queries import Span
from callmeter_sinks.queries.twice import metered_twice
from support.embedded import Pipeline

pytestmark = pytest.mark.slow

#: 0.15 and 0.60 USD per million tokens.
MODEL = "gpt-4o-mini"


def exporter(pipeline: Pipeline, **options) -> OTLPSpanExporter:
    return OTLPSpanExporter(endpoint=f"{pipeline.url}/v1/traces", **options)


def tracing(project: str, **resource: str) -> tuple[TracerProvider, InMemorySpanExporter]:
    """A tracer whose spans are kept, to be sent as often as a test wants."""
    provider = TracerProvider(
        resource=Resource.create({"callmeter.project": project, "service.name": "bot", **resource})
    )
    kept = InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(kept))
    return provider, kept


def spans_of(pipeline: Pipeline, project: str) -> int:
    answer = pipeline.store.query(
        "SELECT count() FROM calls WHERE project = {p:String}", {"p": project}
    )
    return int(answer.rows[0][0])


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


def shape(span: Span) -> tuple:
    return (span.call.operation, span.call.name, [shape(child) for child in span.children])


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


def test_an_outer_instrument_is_not_billed(embedded: Pipeline, project: str) -> None:
    """LangChain's span around OpenAI's of the same call; the outer one in a later batch."""
    provider, kept = tracing(project)
    tracer = provider.get_tracer("langchain")
    asked = {
        "gen_ai.operation.name": "chat",
        "gen_ai.system": "openai",
        "gen_ai.request.model": MODEL,
        "gen_ai.usage.input_tokens": 1000,
        "gen_ai.usage.output_tokens": 100,
    }
    with tracer.start_as_current_span("ChatOpenAI", attributes=asked):  # noqa: SIM117
        with tracer.start_as_current_span("retry"):
            with tracer.start_as_current_span("openai.chat", attributes=asked):
                pass
    inner, between, outer = kept.get_finished_spans()
    sender = exporter(embedded)
    for batch in ([inner], [between, outer]):
        assert sender.export(batch) is SpanExportResult.SUCCESS
    embedded.wait(lambda: spans_of(embedded, project) == 3)
    figures = embedded.queries.report(project=project).totals
    assert (figures.calls, figures.cost_usd) == (1, Decimal("0.000210"))
    (root,) = embedded.queries.trace(format(inner.context.trace_id, "032x"), project=project).roots
    assert shape(root) == (
        "invoke_model",
        "ChatOpenAI",
        [("span", "retry", [("chat", "openai.chat", [])])],
    )


class Copied:
    """A finished span as callmeter's exporter takes it."""

    def __init__(self, span: ReadableSpan, attributes: dict) -> None:
        from datetime import UTC, datetime

        self.trace_id = format(span.context.trace_id, "032x")
        self.span_id = format(span.context.span_id, "016x")
        self.parent_span_id = None if span.parent is None else format(span.parent.span_id, "016x")
        self.name = span.name
        self.start_time = datetime.fromtimestamp(span.start_time // 1_000_000_000, UTC)
        self.end_time = datetime.fromtimestamp(span.start_time // 1_000_000_000 + 1, UTC)
        self.attributes = attributes
        self.events: list[dict] = []
        self.status = "ok"
        self.error = None


def test_what_callmeter_exported_is_stored_and_never_billed(
    embedded: Pipeline, project: str
) -> None:
    """Its spans come back: alone they make the trace, beside their calls they are not shown."""
    client = callmeter.init(embedded.url, project=project)
    with callmeter.generation(model=MODEL, provider="openai") as call:
        call.usage(input=1000, output=100)
    assert callmeter.flush(30.0).ok
    source, envelopes = callmeter.stats().source, callmeter.stats().envelopes
    callmeter.close()
    assert client is not None
    embedded.settle(source, envelopes)
    trace_id, call_id = embedded.store.query(
        "SELECT replaceAll(toString(trace_id), '-', ''), toString(call_id) FROM calls "
        "WHERE project = {p:String}",
        {"p": project},
    ).rows[0]
    provider, kept = tracing(project)
    with provider.get_tracer("x").start_as_current_span("elsewhere"):
        pass
    (span,) = kept.get_finished_spans()
    attributes = {
        "callmeter.project": project,
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": MODEL,
        "gen_ai.usage.input_tokens": 1000,
    }
    ours, alone = Copied(span, attributes), Copied(span, attributes)
    ours.trace_id, ours.span_id = trace_id, call_id[19:23] + call_id[24:]
    bridge = SpanBridge(f"{embedded.url}/v1/traces", service_name="bot", insecure=True)
    for each in (ours, alone):
        bridge.export(each)
    assert bridge.flush()
    bridge.close()
    copies = "SELECT count() FROM calls WHERE operation = 'exported_span' AND {}"
    both = copies.format(
        f"trace_id IN (toUUID('{_dashed(trace_id)}'), toUUID('{_dashed(alone.trace_id)}'))"
    )
    embedded.wait(lambda: embedded.store.query(both).rows[0][0] == 2)
    figures = embedded.queries.report(project=project).totals
    assert (figures.calls, figures.input_tokens) == (1, 1000)
    (root,) = embedded.queries.trace(trace_id).roots
    assert (root.call.call_id, root.children) == (call_id, [])
    (copy,) = embedded.queries.trace(alone.trace_id).roots
    assert (copy.call.operation, copy.call.cost_usd, copy.call.input_tokens) == (
        "exported_span", None, None,
    )  # fmt: skip
    marked = embedded.store.query(
        f"SELECT attributes['callmeter.exported'] FROM calls WHERE operation = 'exported_span' "
        f"AND trace_id = toUUID('{_dashed(trace_id)}')"
    )
    assert marked.rows[0][0] == "true"


def test_a_program_instrumented_twice_is_found(embedded: Pipeline, project: str) -> None:
    provider, kept = tracing(project, **{"service.name": "bot"})
    tracer = provider.get_tracer("openai")
    callmeter.init(embedded.url, project=project, service="bot")

    def ask(tokens: int, *, joined: bool) -> None:
        with tracer.start_as_current_span("chat") as span:
            around = span.get_span_context()
            parent = f"00-{around.trace_id:032x}-{around.span_id:016x}-01" if joined else None
            with callmeter.generation(model=MODEL, provider="openai", parent=parent) as call:
                call.usage(input=tokens, output=10)
            for name, value in (
                ("gen_ai.operation.name", "chat"),
                ("gen_ai.provider.name", "openai"),
                ("gen_ai.request.model", MODEL),
                ("gen_ai.usage.input_tokens", tokens),
                ("gen_ai.usage.output_tokens", 10),
            ):
                span.set_attribute(name, value)
            span.set_status(StatusCode.OK)

    def found() -> list:
        return metered_twice(embedded.store, since=None, project=project)

    def sent(joined: bool, count: int) -> None:
        for number in range(count):
            ask(700 + number, joined=joined)
        assert callmeter.flush(30.0).ok
        assert exporter(embedded).export(kept.get_finished_spans()) is SpanExportResult.SUCCESS
        kept.clear()

    sent(False, 2)
    embedded.wait(lambda: spans_of(embedded, project) == 4)
    assert found() == []  # two that are alike may be a coincidence
    sent(False, 3)
    embedded.wait(lambda: spans_of(embedded, project) == 10)
    (alike,) = found()
    assert (alike.same_trace, alike.pairs, alike.model) == (False, 5, MODEL)
    sent(True, 1)
    embedded.wait(lambda: spans_of(embedded, project) == 12)
    (traced,) = [t for t in found() if t.same_trace]
    assert (traced.service, traced.otlp_service, traced.pairs) == ("bot", "bot", 1)
    assert "billed twice" in str(traced)
    callmeter.close()


def _dashed(digits: str) -> str:
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))
