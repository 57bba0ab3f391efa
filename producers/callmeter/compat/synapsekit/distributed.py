"""``DistributedTracer``: one trace through several services."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from callmeter.compat.synapsekit.tracespan import TraceSpan
from callmeter.integrations.propagation import FORMATS, SpanContext, current_context
from callmeter.sdk import api

#: What a span that is no model call is to callmeter (OpenTelemetry GenAI has no word for it).
OPERATION = "span"


class DistributedTracer:
    """Spans of a service, and their context in headers.

    ``propagation_format`` is ``w3c`` (``traceparent``, ``tracestate``) or ``b3`` (``X-B3-…``; the
    single header is understood too); ``ValueError`` for anything else.

    >>> tracer = DistributedTracer("rag-service")
    >>> with tracer.start_span("rag.query", tracer.extract_context(request.headers)) as span:
    ...     span.set_attribute("answer_length", 17)
    """

    def __init__(self, service_name: str, propagation_format: str = "w3c") -> None:
        if propagation_format not in FORMATS:
            known = ", ".join(FORMATS)
            raise ValueError(f"a propagation format is one of {known}, not {propagation_format!r}")
        self.service_name = service_name
        self.propagation_format = propagation_format
        self._format = FORMATS[propagation_format]

    def start_span(self, name: str, parent_context: dict[str, Any] | None = None) -> TraceSpan:
        """A span below ``parent_context``, as ``extract_context`` gives it; below the span around
        if there is none; else the root of a new trace.
        """
        context = None if parent_context is None else _context(parent_context)
        span = TraceSpan(
            name,
            api.operation_call(name, OPERATION),
            parent=None if context is None else context.frame(),
        )
        span.set_attribute("service.name", self.service_name)
        return span

    def inject_context(self, headers: dict[str, str]) -> dict[str, str]:
        """Add the context of the span around to outgoing headers, and return them. The others
        are kept; outside of any span nothing is added.
        """
        context = current_context()
        if context is not None:
            self._format.inject(context, headers)
        return headers

    def extract_context(self, headers: Mapping[str, str]) -> dict[str, Any] | None:
        """``trace_id``, ``span_id``, ``sampled`` and ``tracestate`` out of incoming headers, their
        names in any case; None if there is no valid context.
        """
        context = self._format.extract(headers)
        return None if context is None else context._asdict()


def _context(given: Mapping[str, Any]) -> SpanContext | None:
    """A context as ``extract_context`` gives it; None for a dict that is none."""
    trace_id, span_id = given.get("trace_id"), given.get("span_id")
    if not isinstance(trace_id, str) or not isinstance(span_id, str):
        return None
    sampled, state = given.get("sampled", True), given.get("tracestate", "")
    return SpanContext(trace_id, span_id, bool(sampled), str(state or ""))
