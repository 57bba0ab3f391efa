"""Calls that come by several roads: nested instruments, callmeter's own exporter, SDK and spans."""

from __future__ import annotations

from decimal import Decimal

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.trace import StatusCode

import callmeter
from callmeter.integrations.opentelemetry import SpanBridge
from callmeter_sinks.queries.twice import metered_twice
from support.embedded import Pipeline
from support.otlp_sending import MODEL, exporter, shape, spans_of, tracing

pytestmark = pytest.mark.slow


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
