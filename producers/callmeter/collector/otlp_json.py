"""OTLP's JSON to spans: protobuf's JSON, but for ids in hex and enums as numbers.

https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from callmeter.spans.span import (
    MAX_DEPTH,
    MAX_SPANS,
    Attributes,
    BadRequestError,
    Span,
    SpanEvent,
    Value,
)

_ERRORS = (2, "STATUS_CODE_ERROR")
_MAX_INT = 2**64


def read_spans(body: bytes) -> list[Span]:
    """The spans of a request; ``BadRequestError`` for what is none."""
    try:
        request = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise BadRequestError("the body is not JSON") from None
    spans = list(_spans(_object(request, "the request")))
    if len(spans) > MAX_SPANS:
        raise BadRequestError(f"more than {MAX_SPANS} spans in one request")
    return spans


def answer(rejected: int, message: str) -> bytes:
    """The response's bytes; 64-bit numbers are text in protobuf's JSON."""
    if not rejected and not message:
        return b"{}"
    return orjson.dumps(
        {"partialSuccess": {"rejectedSpans": str(rejected), "errorMessage": message}}
    )


def status(code: int, message: str) -> bytes:
    """A ``google.rpc.Status``."""
    return orjson.dumps({"code": code, "message": message})


def _spans(request: Mapping[str, Any]) -> Iterator[Span]:
    for of_resource in _objects(request, "resourceSpans"):
        resource = _attributes(_object(of_resource.get("resource") or {}, "resource"))
        for of_scope in _objects(of_resource, "scopeSpans"):
            scope = _object(of_scope.get("scope") or {}, "scope")
            for span in _objects(of_scope, "spans"):
                status = _object(span.get("status") or {}, "status")
                yield Span(
                    trace_id=_text(span, "traceId").lower(),
                    span_id=_text(span, "spanId").lower(),
                    parent_id=_text(span, "parentSpanId").lower(),
                    name=_text(span, "name"),
                    start_ns=_integer(span.get("startTimeUnixNano", 0), "startTimeUnixNano"),
                    end_ns=_integer(span.get("endTimeUnixNano", 0), "endTimeUnixNano"),
                    failed=status.get("code") in _ERRORS,
                    message=_text(status, "message"),
                    attributes=_attributes(span),
                    events=tuple(_event(event) for event in _objects(span, "events")),
                    resource=resource,
                    scope=_text(scope, "name"),
                )


def _event(event: Mapping[str, Any]) -> SpanEvent:
    at_ns = _integer(event.get("timeUnixNano", 0), "timeUnixNano")
    return SpanEvent(_text(event, "name"), at_ns, _attributes(event))


def _attributes(holder: Mapping[str, Any]) -> Attributes:
    return {
        _text(pair, "key"): _value(_object(pair.get("value") or {}, "value"), MAX_DEPTH)
        for pair in _objects(holder, "attributes")
    }


def _value(value: Mapping[str, Any], depth: int) -> Value:
    if not depth:
        return None
    for kind in ("stringValue", "bytesValue"):
        if kind in value:
            return _text(value, kind)
    if "intValue" in value:
        return _integer(value["intValue"], "intValue")
    if "boolValue" in value:
        return value["boolValue"] is True
    if "doubleValue" in value:
        return _double(value["doubleValue"])
    if "arrayValue" in value:
        array = _object(value["arrayValue"], "arrayValue")
        return [_value(each, depth - 1) for each in _objects(array, "values")]
    if "kvlistValue" in value:
        pairs = _objects(_object(value["kvlistValue"], "kvlistValue"), "values")
        return {
            _text(p, "key"): _value(_object(p.get("value") or {}, "value"), depth - 1)
            for p in pairs
        }
    return None


def _double(value: Any) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if value in ("NaN", "Infinity", "-Infinity"):
        return float(value.replace("Infinity", "inf"))
    raise BadRequestError("'doubleValue' is not a number")


def _integer(value: Any, name: str) -> int:
    """A 64-bit integer, as text or as a number."""
    if isinstance(value, str) and value.removeprefix("-").isdecimal() and len(value) <= 20:
        value = int(value) if value.isascii() else None
    if not isinstance(value, int) or isinstance(value, bool) or abs(value) >= _MAX_INT:
        raise BadRequestError(f"{name!r} is not a 64-bit integer")
    return value


def _text(holder: Mapping[str, Any], name: str) -> str:
    value = holder.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise BadRequestError(f"{name!r} is not text")
    return value


def _object(value: Any, name: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise BadRequestError(f"{name} is not an object")
    return value


def _objects(holder: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    values = holder.get(name) or []
    if not isinstance(values, list) or not all(isinstance(each, dict) for each in values):
        raise BadRequestError(f"{name!r} is not a list of objects")
    return values
