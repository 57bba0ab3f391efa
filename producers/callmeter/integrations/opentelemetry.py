"""Finished spans to any OpenTelemetry backend, over OTLP: gRPC or HTTP.

Spans are handed to OpenTelemetry's own batching processor and exporter with the ids they have, so
what the backend shows and what the store holds is the same trace.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Protocol
from urllib.parse import urlsplit, urlunsplit

from callmeter.errors import ConfigError, MissingExtraError

try:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import Event, ReadableSpan
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope
    from opentelemetry.trace import SpanContext, SpanKind, TraceFlags
    from opentelemetry.trace.status import Status, StatusCode
except ImportError as exc:
    raise MissingExtraError("opentelemetry-sdk", "otel") from exc

#: The port that OTLP has over HTTP; over gRPC it is 4317.
HTTP_PORT = 4318
#: How long a backend may take for a batch, retries included.
TIMEOUT_S = 5
TRACES_PATH = "/v1/traces"
SCOPE_NAME = "otel.scope.name"
#: On the resource of every span sent from here: a collector of callmeter that receives it stores it
#: for the trace and bills nothing, for its call was metered where it was made.
EXPORTED = "callmeter.exported"
_STATUS = {"ok": StatusCode.OK, "error": StatusCode.ERROR}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class FinishedSpan(Protocol):
    """What is exported: ids as hex digits, aware times, events as dicts."""

    span_id: str
    trace_id: str
    parent_span_id: str | None
    name: str
    start_time: datetime
    end_time: datetime | None
    attributes: dict[str, Any]
    events: list[dict[str, Any]]
    status: str
    error: str | None


class SpanBridge:
    """Sends spans to an OTLP endpoint, from a thread of OpenTelemetry's.

    An endpoint with a path or port 4318 is spoken to over HTTP, any other over gRPC. With
    ``insecure`` the connection may be plaintext; without it is TLS whatever the URL says (CA,
    client certificate and key as OpenTelemetry has them: ``OTEL_EXPORTER_OTLP_CERTIFICATE``, …).
    ``ConfigError`` for an endpoint that is none.
    """

    def __init__(
        self,
        endpoint: str,
        *,
        service_name: str,
        headers: Mapping[str, str] | None = None,
        insecure: bool = False,
    ) -> None:
        self.endpoint, over_http = otlp_endpoint(endpoint, insecure=insecure)
        self._told = 0
        self._resource = Resource.create({"service.name": service_name, EXPORTED: True})
        made = _http if over_http else _grpc
        self._exporter = _Counting(made(self.endpoint, dict(headers or {}), insecure))
        self._processor = BatchSpanProcessor(self._exporter)

    def export(self, span: FinishedSpan) -> None:
        """Queue a finished span. Never blocks; a full queue is OpenTelemetry's to count."""
        self._processor.on_end(readable(span, self._resource))

    @property
    def failed(self) -> int:
        """Spans that no backend has taken."""
        return self._exporter.failed

    def flush(self) -> bool:
        """Send what is queued; whether everything was taken since the last flush. Waits for the
        backend as long as the exporter's time-out (``OTEL_EXPORTER_OTLP_TIMEOUT``, else 5 s).
        """
        done = self._processor.force_flush()
        told, self._told = self._told, self._exporter.failed
        return done and told == self._told

    def close(self) -> None:
        """Send what is queued, within the exporter's time-out, and stop."""
        self._processor.shutdown()  # type: ignore[no-untyped-call]


def otlp_endpoint(endpoint: str, *, insecure: bool) -> tuple[str, bool]:
    """The URL to speak to, and whether that is HTTP.

    >>> otlp_endpoint("localhost:4318", insecure=True)
    ('http://localhost:4318/v1/traces', True)
    """
    parts = urlsplit(endpoint if "://" in endpoint else f"//{endpoint}")
    try:
        port = parts.port
    except ValueError as exc:
        raise ConfigError(f"not an OTLP endpoint: {endpoint!r}") from exc
    if not parts.hostname or parts.scheme not in ("", "http", "https", "grpc", "grpcs"):
        raise ConfigError(f"not an OTLP endpoint: {endpoint!r}; for example http://localhost:4317")
    plain = insecure and parts.scheme in ("", "http", "grpc")
    path = parts.path.rstrip("/")
    over_http = bool(path) or port == HTTP_PORT
    scheme = "http" if plain else "https"
    if not over_http:
        return urlunsplit((scheme, parts.netloc, "", "", "")), False
    return urlunsplit((scheme, parts.netloc, path or TRACES_PATH, parts.query, "")), True


def readable(span: FinishedSpan, resource: Resource) -> ReadableSpan:
    """The same span as OpenTelemetry's exporters take it."""
    attributes = dict(span.attributes)
    scope = str(attributes.pop(SCOPE_NAME, "callmeter"))
    trace_id = int(span.trace_id, 16)
    parent = span.parent_span_id
    return ReadableSpan(
        name=span.name,
        context=_context(trace_id, span.span_id),
        parent=None if parent is None else _context(trace_id, parent),
        resource=resource,
        attributes=_flat(attributes),
        events=[
            Event(
                str(event["name"]),
                attributes=_flat(event.get("attributes") or {}),
                timestamp=_ns(event["timestamp"]),
            )
            for event in span.events
        ],
        kind=SpanKind.INTERNAL,
        status=Status(
            _STATUS.get(span.status, StatusCode.UNSET),
            span.error if span.status == "error" else None,
        ),
        start_time=_ns(span.start_time),
        end_time=None if span.end_time is None else _ns(span.end_time),
        instrumentation_scope=InstrumentationScope(scope),
    )


def _context(trace_id: int, span_id: str) -> SpanContext:
    return SpanContext(
        trace_id, int(span_id, 16), is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED)
    )


def _ns(at: datetime) -> int:
    passed = at - _EPOCH
    return ((passed.days * 86_400 + passed.seconds) * 1_000_000 + passed.microseconds) * 1000


def _flat(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """OpenTelemetry's attributes are text, numbers and lists of one kind; the rest goes as JSON."""
    flat: dict[str, Any] = {}
    for key, value in attributes.items():
        if isinstance(value, str | bool | int | float):
            flat[key] = value
        elif isinstance(value, Sequence) and all(isinstance(each, str) for each in value):
            flat[key] = list(value)
        elif value is not None:
            flat[key] = json.dumps(value, default=str, ensure_ascii=False)
    return flat


class _Counting(SpanExporter):
    """An exporter that remembers what was not taken: the batching processor says nothing of it."""

    def __init__(self, inner: SpanExporter) -> None:
        self._inner = inner
        self.failed = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._inner.export(spans)
        if result is not SpanExportResult.SUCCESS:
            self.failed += len(spans)
        return result

    def shutdown(self) -> None:
        self._inner.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._inner.force_flush(timeout_millis)


def _timeout_s() -> int | None:
    """Ours, shorter than OpenTelemetry's 10 s, for a backend that is away; None if one is set."""
    names = ("OTEL_EXPORTER_OTLP_TIMEOUT", "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT")
    return None if any(name in os.environ for name in names) else TIMEOUT_S


def _grpc(endpoint: str, headers: dict[str, str], insecure: bool) -> SpanExporter:
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

    # gRPC's metadata has lower-case names only.
    lowered = tuple((name.lower(), value) for name, value in headers.items())
    return OTLPSpanExporter(
        endpoint=endpoint, insecure=insecure, headers=lowered, timeout=_timeout_s()
    )


def _http(endpoint: str, headers: dict[str, str], insecure: bool) -> SpanExporter:  # noqa: ARG001
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter(endpoint=endpoint, headers=headers, timeout=_timeout_s())
