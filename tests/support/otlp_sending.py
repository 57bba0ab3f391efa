"""OpenTelemetry's tracer and exporter, pointed at a pipeline, and what it stored of them."""

from __future__ import annotations

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from callmeter_sinks.queries import Span
from support.embedded import Pipeline

#: 0.15 and 0.60 USD per million tokens.
MODEL = "gpt-4o-mini"


def exporter(pipeline: Pipeline, **options) -> OTLPSpanExporter:
    """The real one, over HTTP with protobuf."""
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
    """How many of a project's spans are stored."""
    answer = pipeline.store.query(
        "SELECT count() FROM calls WHERE project = {p:String}", {"p": project}
    )
    return int(answer.rows[0][0])


def shape(span: Span) -> tuple:
    """Operation, name and children."""
    return (span.call.operation, span.call.name, [shape(child) for child in span.children])
