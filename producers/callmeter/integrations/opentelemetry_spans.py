"""OpenTelemetry's spans in: a span processor that meters what other instrumentations have seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from callmeter.clock import SystemClock
from callmeter.errors import MissingExtraError
from callmeter.sdk import api
from callmeter.sdk.containment import contained
from callmeter.spans.calls import check, event_of, is_copy
from callmeter.spans.names import is_genai
from callmeter.spans.nesting import Nesting
from callmeter.spans.span import Span, SpanEvent, Value

try:
    from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
    from opentelemetry.trace.status import StatusCode
except ImportError as exc:
    raise MissingExtraError("opentelemetry-sdk", "otel") from exc


class CallmeterSpanProcessor(SpanProcessor):
    """Hands every finished span that speaks of a model, an agent or a tool to callmeter's client.

    Trace, span and parent keep their ids, so they join calls that callmeter metered itself. With
    ``every_span`` the others come along, for the tree. Of model calls within one another the
    innermost is billed. Do not meter the same client with ``callmeter.instrument`` too: what two
    instruments report is two calls, and ``callmeter doctor`` finds them.

    >>> provider = TracerProvider()
    >>> provider.add_span_processor(CallmeterSpanProcessor())
    """

    def __init__(self, *, every_span: bool = False) -> None:
        self.every_span = every_span
        self._nesting = Nesting()
        self._clock = SystemClock()

    @contained("the span processor")
    def on_end(self, span: ReadableSpan) -> None:
        """Queue the span's call."""
        client = api.default_client()
        if client is None:
            return
        found = span_of(span)
        if is_copy(found) or not (self.every_span or is_genai(found.attributes)):
            return
        check(found, self._clock.now_us())
        wraps = bool(self._nesting.wrappers("", [found]))
        event, _ = event_of(found, wraps=wraps, via="span_processor")
        client.emit_event(msgspec.to_builtins(event))

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Deliver what is queued; whether all of it was."""
        return api.flush(timeout_millis / 1000).ok


def span_of(span: ReadableSpan) -> Span:
    """A finished span of the OpenTelemetry SDK."""
    context, parent, scope = span.context, span.parent, span.instrumentation_scope
    return Span(
        trace_id="" if context is None else f"{context.trace_id:032x}",
        span_id="" if context is None else f"{context.span_id:016x}",
        parent_id="" if parent is None else f"{parent.span_id:016x}",
        name=span.name,
        start_ns=span.start_time or 0,
        end_ns=span.end_time or 0,
        failed=span.status.status_code is StatusCode.ERROR,
        message=span.status.description or "",
        attributes=_plain(span.attributes),
        events=tuple(SpanEvent(e.name, e.timestamp, _plain(e.attributes)) for e in span.events),
        resource=_plain(span.resource.attributes),
        scope="" if scope is None else scope.name,
    )


def _plain(attributes: Mapping[str, Any] | None) -> dict[str, Value]:
    return {name: _value(value) for name, value in (attributes or {}).items()}


def _value(value: Any) -> Value:
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [_value(each) for each in value]
    return value if isinstance(value, str | bool | int | float) else str(value)
