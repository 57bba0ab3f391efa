"""A span becomes a call, and an envelope whose identity and bytes are the span's own. Pure.

Why an envelope for each span, and why its source is made from the span's ids, is told in
docs/decisions/0019-keys-and-spans.md.
"""

from __future__ import annotations

import hashlib
import uuid
from dataclasses import dataclass
from typing import Any

import msgspec
import orjson

from callmeter._version import __version__
from callmeter.ids import uuid8
from callmeter.schema.envelope import Header, encode
from callmeter.schema.events import MAX_DURATION_US, MODEL_OPERATIONS, CallEnd
from callmeter.spans import names
from callmeter.spans.span import Span, Value

#: Attribute that callmeter's own exporter puts on resources: its spans are copies of calls that
#: were metered where they were made.
EXPORTED = "callmeter.exported"
#: The operation of such a copy: in the trace, and never a call.
EXPORTED_OPERATION = "exported_span"
#: A model call around another one of the same model: the inner one is billed, as in the SDK.
WRAPPER_OPERATION = "invoke_model"
#: Attribute of everything that came as a span, and how it came.
VIA = "callmeter.via"
PROJECT = "callmeter.project"
TAG_PREFIX = "callmeter.tag."

#: The meter's own bounds: an older span would be a dead letter, for nobody knows any more whether
#: it was there before; a later one is from a clock that is wrong.
MAX_AGE_US = 30 * 86_400 * 1_000_000
MAX_AHEAD_US = 600 * 1_000_000

_MAX_TEXT = 2000
_MAX_ATTRIBUTES = 64
_MAX_VALUE = 1000
_MAX_ATTRIBUTES_CHARS = 32 * 1024
_LAST_US = 4_102_444_800_000_000  # the year 2100, as the schema's
_SDK = f"callmeter-otlp/{__version__}"
_HEX = frozenset("0123456789abcdef")
_ENVIRONMENT = ("deployment.environment.name", "deployment.environment")


class SpanError(ValueError):
    """A span that cannot be taken; says why, never what was in it."""


@dataclass(frozen=True, slots=True)
class SpanCall:
    """A span as it goes into the log, and what became of it (for counters)."""

    source: str
    data: bytes
    kind: str


def check(span: Span, now_us: int) -> None:
    """``SpanError`` for ids or times that no span has."""
    if not _is_id(span.trace_id, 32):
        raise SpanError("a trace id is 16 bytes and not all zero")
    if not _is_id(span.span_id, 16):
        raise SpanError("a span id is 8 bytes and not all zero")
    if span.parent_id and not _is_id(span.parent_id, 16):
        raise SpanError("a parent span id is 8 bytes and not all zero")
    end_us = span.end_ns // 1000
    if not 0 < span.start_ns <= span.end_ns or end_us > _LAST_US:
        raise SpanError("a span starts after 1970 and ends after it has started")
    if now_us - end_us > MAX_AGE_US:
        raise SpanError("the span ended more than 30 days ago")
    if end_us - now_us > MAX_AHEAD_US:
        raise SpanError("the span ends more than 10 minutes ahead of the collector's clock")


def is_copy(span: Span) -> bool:
    """Whether callmeter's own exporter has sent it."""
    return bool(span.resource.get(EXPORTED) or span.attributes.get(EXPORTED))


def operation_of(span: Span) -> str:
    """What the span did, in the words of the convention."""
    return names.operation(span.attributes)


def model_of(span: Span) -> str:
    """The model it asked for, else the one that answered."""
    attributes = span.attributes
    return names.text(attributes, names.MODEL) or names.text(attributes, names.RESPONSE_MODEL)


def event_of(span: Span, *, wraps: bool = False, via: str = "otlp") -> tuple[CallEnd, str]:
    """The ``call_end`` of a checked span, and what it became. ``wraps``: see ``call_of``."""
    operation = operation_of(span)
    kind = "call" if operation in MODEL_OPERATIONS else "operation"
    if operation == names.PLAIN:
        kind = "span"
    if is_copy(span):
        operation, kind = EXPORTED_OPERATION, "exported"
    elif wraps:
        operation, kind = WRAPPER_OPERATION, "wrapper"
    return _event(span, operation, kind, via), kind


def call_of(span: Span, project: str, *, wraps: bool = False, environment: str = "") -> SpanCall:
    """The envelope of a checked span. ``wraps``: a call to the same model lies within it.

    Bytes and identity come from span and project alone, so a span that is sent again, to whichever
    collector and in whichever batch, is the same envelope again.
    """
    event, kind = event_of(span, wraps=wraps)
    end_us = span.end_ns // 1000
    source = uuid8(
        b"callmeter.otlp", project.encode(), span.trace_id.encode(), span.span_id.encode()
    )
    header = Header(
        source=source,
        seq=0,
        n=1,
        sent_us=end_us,
        project=project,
        environment=names.text(span.resource, _ENVIRONMENT) or environment,
        service=names.text(span.resource, ("service.name",)),
        sdk=_SDK,
        accepted=1,
        last=True,
    )
    return SpanCall(source, encode(header, [msgspec.json.encode(event)]), kind)


def call_id(span: Span) -> str:
    """The call's id: 48 bits of its start in ms, 12 bits of its trace, and the span's id as it is.

    A UUIDv8 that sorts by time like the SDK's UUIDv7; the span's id stands in its low 8 bytes, as
    for every call, so the variant's two bits are whatever the span's id has there.
    """
    trace = int.from_bytes(hashlib.sha256(span.trace_id.encode()).digest()[:2], "big") & 0xFFF
    high = (span.start_ns // 1_000_000 & 0xFFFFFFFFFFFF) << 16 | 0x8 << 12 | trace
    return str(uuid.UUID(int=high << 64 | int(span.span_id, 16)))


def _event(span: Span, operation: str, kind: str, via: str) -> CallEnd:
    attributes = span.attributes
    more: dict[str, Any] = {}
    if kind not in ("exported", "wrapper"):  # theirs is counted elsewhere
        counted = names.usage(attributes)
        if counted is not None:
            more["usage"] = counted
    http_status = names.count(attributes, names.HTTP_STATUS)
    if http_status is not None and http_status <= 999:
        more["http_status"] = http_status
    first_us = _first_token_us(span)
    if first_us is not None:
        more["ttft_us"] = first_us
    if span.parent_id:
        more["parent_span_id"] = span.parent_id
    error_type, error_message = _error(span)
    model = names.text(attributes, names.MODEL)
    answered = names.text(attributes, names.RESPONSE_MODEL)
    return CallEnd(
        ts_us=span.end_ns // 1000,
        call_id=call_id(span),
        trace_id=span.trace_id,
        started_us=span.start_ns // 1000,
        operation=operation,
        status="error" if span.failed else "ok",
        name=span.name[:256],
        provider=names.text(attributes, names.PROVIDER),
        model=model or answered,
        response_model=answered,
        node=names.text(attributes, names.NODE),
        program=names.text(attributes, names.PROGRAM),
        user=names.text(attributes, names.USER),
        session=names.text(attributes, names.SESSION),
        service_tier=names.text(attributes, names.TIER),
        finish_reason=names.text(attributes, names.FINISH),
        error_type=error_type,
        error_message=error_message,
        latency_us=min((span.end_ns - span.start_ns) // 1000, MAX_DURATION_US),
        tags=_tags(span),
        attributes=_kept(span, kind, via),
        **more,
    )


def _error(span: Span) -> tuple[str, str]:
    if not span.failed:
        return "", ""
    raised = next((e.attributes for e in span.events if e.name == "exception"), {})
    kind = names.text(span.attributes, ("error.type",)) or names.text(raised, ("exception.type",))
    message = span.message or names.text(raised, ("exception.message",), _MAX_TEXT)
    return kind or "error", message[:_MAX_TEXT]


def _first_token_us(span: Span) -> int | None:
    seconds = names.first(span.attributes, names.FIRST_TOKEN_S)
    longest_us = min((span.end_ns - span.start_ns) // 1000, MAX_DURATION_US)
    if isinstance(seconds, int | float) and not isinstance(seconds, bool) and seconds >= 0:
        # A time beyond the call's end is in another unit, or wrong.
        return round(seconds * 1e6) if seconds * 1e6 <= longest_us else None
    for event in span.events:
        if event.name in names.FIRST_TOKEN_EVENTS and span.start_ns <= event.time_ns <= span.end_ns:
            return (event.time_ns - span.start_ns) // 1000
    return None


def _tags(span: Span) -> dict[str, str]:
    found = {**span.resource, **span.attributes}
    tags = {
        name.removeprefix(TAG_PREFIX)[:256]: _as_text(value)
        for name, value in found.items()
        if name.startswith(TAG_PREFIX) and value is not None
    }
    return dict(list(tags.items())[:_MAX_ATTRIBUTES])


def _kept(span: Span, kind: str, via: str) -> dict[str, str]:
    """The attributes that are no field of their own; never a prompt or an answer."""
    kept = {VIA: via}
    if span.scope:
        kept["otel.scope.name"] = span.scope[:256]
    if kind == "exported":
        kept[EXPORTED] = "true"
    room = _MAX_ATTRIBUTES_CHARS
    for name, value in span.attributes.items():
        skipped = name.startswith(("callmeter.", TAG_PREFIX)) or names.is_content(name)
        used = names.is_used(name) and kind not in ("exported", "wrapper")
        if skipped or used or value is None:
            continue
        said = _as_text(value)
        room -= len(name) + len(said)
        if len(kept) >= _MAX_ATTRIBUTES or room < 0:
            kept["callmeter.attributes_cut"] = "true"
            break
        kept[name[:256]] = said
    return kept


def _as_text(value: Value) -> str:
    if isinstance(value, str):
        return value[:_MAX_VALUE]
    try:
        return orjson.dumps(value).decode()[:_MAX_VALUE]
    except orjson.JSONEncodeError:  # an integer beyond 64 bits
        return str(value)[:_MAX_VALUE]


def _is_id(text: str, digits: int) -> bool:
    return len(text) == digits and _HEX.issuperset(text) and text.strip("0") != ""
