"""A span as OpenTelemetry has it, whichever way it came."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

#: An attribute's value: OpenTelemetry's ``AnyValue``, bytes as base64 text.
Value = str | bool | int | float | list["Value"] | dict[str, "Value"] | None
Attributes = Mapping[str, Value]

#: Arrays and maps within one another, in one attribute; what lies deeper is left out.
MAX_DEPTH = 8
#: Spans of one request: a collector's own batches are of 8,192.
MAX_SPANS = 20_000


class BadRequestError(ValueError):
    """The body is not an ``ExportTraceServiceRequest``; says where, never what."""


@dataclass(frozen=True, slots=True)
class SpanEvent:
    """Something that happened within a span; ``time_ns`` since 1970."""

    name: str
    time_ns: int
    attributes: Attributes = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Span:
    """One span. Ids are hex as sent, ``parent_id`` is "" for a root; times are ns since 1970."""

    trace_id: str
    span_id: str
    parent_id: str
    name: str
    start_ns: int
    end_ns: int
    failed: bool
    message: str
    attributes: Attributes
    events: tuple[SpanEvent, ...]
    resource: Attributes
    scope: str
