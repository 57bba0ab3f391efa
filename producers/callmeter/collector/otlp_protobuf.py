"""OTLP's protobuf: ``ExportTraceServiceRequest`` to spans.

https://github.com/open-telemetry/opentelemetry-proto, opentelemetry/proto/trace/v1/trace.proto
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

from callmeter.errors import MissingExtraError
from callmeter.spans.span import (
    MAX_DEPTH,
    MAX_SPANS,
    Attributes,
    BadRequestError,
    Span,
    SpanEvent,
    Value,
)

try:
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
        ExportTraceServiceRequest,
        ExportTraceServiceResponse,
    )
except ImportError as exc:
    raise MissingExtraError("opentelemetry-proto", "collector") from exc

_STATUS_ERROR = 2


def read_spans(body: bytes) -> list[Span]:
    """The spans of a request; ``BadRequestError`` for what is none."""
    try:
        request = ExportTraceServiceRequest.FromString(body)
    except (DecodeError, UnicodeDecodeError):
        raise BadRequestError("the body is not an ExportTraceServiceRequest") from None
    count = sum(len(s.spans) for r in request.resource_spans for s in r.scope_spans)
    if count > MAX_SPANS:
        raise BadRequestError(f"more than {MAX_SPANS} spans in one request")
    return list(_spans(request))


def answer(rejected: int, message: str) -> bytes:
    """The response's bytes; without a message and rejected spans it is empty, as OTLP wants."""
    response = ExportTraceServiceResponse()
    if rejected or message:
        response.partial_success.rejected_spans = rejected
        response.partial_success.error_message = message
    encoded: bytes = response.SerializeToString()
    return encoded


def status(code: int, message: str) -> bytes:
    """A ``google.rpc.Status``: field 1 the code, field 2 the message."""
    text = message.encode()
    return bytes((0x08, code)) + b"\x12" + _varint(len(text)) + text


def _spans(request: Any) -> Iterator[Span]:
    for of_resource in request.resource_spans:
        resource = _attributes(of_resource.resource.attributes)
        for of_scope in of_resource.scope_spans:
            for span in of_scope.spans:
                yield Span(
                    trace_id=span.trace_id.hex(),
                    span_id=span.span_id.hex(),
                    parent_id=span.parent_span_id.hex(),
                    name=span.name,
                    start_ns=span.start_time_unix_nano,
                    end_ns=span.end_time_unix_nano,
                    failed=span.status.code == _STATUS_ERROR,
                    message=span.status.message,
                    attributes=_attributes(span.attributes),
                    events=tuple(
                        SpanEvent(event.name, event.time_unix_nano, _attributes(event.attributes))
                        for event in span.events
                    ),
                    resource=resource,
                    scope=of_scope.scope.name,
                )


def _attributes(pairs: Any) -> Attributes:
    return {pair.key: _value(pair.value, MAX_DEPTH) for pair in pairs}


def _value(value: Any, depth: int) -> Value:
    kind = value.WhichOneof("value")
    if kind is None or not depth:
        return None
    if kind == "array_value":
        return [_value(each, depth - 1) for each in value.array_value.values]
    if kind == "kvlist_value":
        return {pair.key: _value(pair.value, depth - 1) for pair in value.kvlist_value.values}
    if kind == "bytes_value":
        return base64.b64encode(value.bytes_value).decode()
    plain: Value = getattr(value, kind)
    return plain


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)
