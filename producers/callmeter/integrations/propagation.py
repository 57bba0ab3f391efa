"""Trace context in headers: W3C Trace Context and Zipkin's B3, read and written.

    https://www.w3.org/TR/trace-context/ (traceparent, tracestate)
    https://github.com/openzipkin/b3-propagation (several headers, or one)

Headers that are no valid context are no context: a new trace begins, and nobody is told off.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, MutableMapping
from typing import NamedTuple

from callmeter.sdk.context import FRAME, ForeignTrace, Frame, Surroundings
from callmeter.sdk.traceparent import frame_from_traceparent

TRACEPARENT, TRACESTATE = "traceparent", "tracestate"
B3_SINGLE = "b3"
B3_TRACE_ID, B3_SPAN_ID, B3_SAMPLED = "X-B3-TraceId", "X-B3-SpanId", "X-B3-Sampled"
_B3_FLAGS = "X-B3-Flags"
#: Section 3.3.1.5 of W3C's: longer state need not be carried on.
MAX_TRACESTATE_CHARS = 512
_B3_TRACE = re.compile(r"(?:[0-9a-f]{16}){1,2}\Z")
_B3_SPAN = re.compile(r"[0-9a-f]{16}\Z")


class SpanContext(NamedTuple):
    """A span elsewhere: 32 and 16 hex digits, whether its trace is recorded, vendors' state."""

    trace_id: str
    span_id: str
    sampled: bool = True
    tracestate: str = ""

    def frame(self) -> Surroundings:
        """What a call that continues this trace has around it."""
        trace = RemoteTrace(self.trace_id, self.tracestate)
        return Surroundings(trace, self.span_id, self.sampled, FRAME.get().labels)


class RemoteTrace(ForeignTrace):
    """A trace that began elsewhere, with the state that travels along."""

    __slots__ = ("tracestate",)

    def __init__(self, trace_id: str, tracestate: str) -> None:
        super().__init__(trace_id)
        self.tracestate = tracestate


def current_context(frame: Frame | None = None) -> SpanContext | None:
    """The span around, or that of a frame; None outside of any trace."""
    around = FRAME.get() if frame is None else frame
    span = around.span
    if span is None:
        return None
    span_id = span if isinstance(span, str) else f"{1 << 63 | span:016x}"
    state = around.root.tracestate if isinstance(around.root, RemoteTrace) else ""
    return SpanContext(around.trace_id, span_id, around.sampled, state)


def inject_w3c(context: SpanContext, headers: MutableMapping[str, str]) -> None:
    """Write ``traceparent``, and ``tracestate`` if there is any."""
    flags = "01" if context.sampled else "00"
    _put(headers, TRACEPARENT, f"00-{context.trace_id}-{context.span_id}-{flags}")
    if context.tracestate:
        _put(headers, TRACESTATE, context.tracestate)


def extract_w3c(headers: Mapping[str, str]) -> SpanContext | None:
    """Read ``traceparent`` and ``tracestate``, in any case; None if there is no valid one."""
    found = _lowered(headers)
    text = found.get(TRACEPARENT)
    frame = None if text is None else frame_from_traceparent(text, FRAME.get().labels)
    if frame is None or not isinstance(frame.span, str):
        return None
    state = found.get(TRACESTATE, "").strip()
    kept = state if len(state) <= MAX_TRACESTATE_CHARS else ""
    return SpanContext(frame.trace_id, frame.span, frame.sampled, kept)


def inject_b3(context: SpanContext, headers: MutableMapping[str, str]) -> None:
    """Write the three ``X-B3-…`` headers."""
    _put(headers, B3_TRACE_ID, context.trace_id)
    _put(headers, B3_SPAN_ID, context.span_id)
    _put(headers, B3_SAMPLED, "1" if context.sampled else "0")


def extract_b3(headers: Mapping[str, str]) -> SpanContext | None:
    """Read ``b3``, else the ``X-B3-…`` headers, in any case; None if there is no valid context.

    Trace ids of 16 digits are filled up with zeros on the left.
    """
    found = _lowered(headers)
    single = found.get(B3_SINGLE)
    if single is not None:
        parts = [*single.strip().split("-"), "", ""]
        trace_id, span_id, sampled = parts[0], parts[1], parts[2]
    else:
        trace_id = found.get(B3_TRACE_ID.lower(), "")
        span_id = found.get(B3_SPAN_ID.lower(), "")
        sampled = found.get(B3_SAMPLED.lower(), "")
        if found.get(_B3_FLAGS.lower(), "").strip() == "1":  # debug: recorded whatever else is said
            sampled = "d"
    trace_id, span_id = trace_id.strip().lower(), span_id.strip().lower()
    if not (_B3_TRACE.match(trace_id) and _B3_SPAN.match(span_id)):
        return None
    if not int(trace_id, 16) or not int(span_id, 16):
        return None
    kept = sampled.strip().lower() not in ("0", "false")
    return SpanContext(trace_id.zfill(32), span_id, kept)


class Format(NamedTuple):
    """A way to write a context into headers, and to read it from them."""

    inject: Callable[[SpanContext, MutableMapping[str, str]], None]
    extract: Callable[[Mapping[str, str]], SpanContext | None]


FORMATS: Mapping[str, Format] = {
    "w3c": Format(inject_w3c, extract_w3c),
    "b3": Format(inject_b3, extract_b3),
}


def _lowered(headers: Mapping[str, str]) -> dict[str, str]:
    """Headers by name in lower case; bytes, as ASGI has them, are read as Latin-1."""
    return {_text(name).lower(): _text(value) for name, value in headers.items()}


def _text(value: str | bytes) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


def _put(headers: MutableMapping[str, str], name: str, value: str) -> None:
    """Set a header, replacing one of the same name in another case."""
    for other in [key for key in headers if key.lower() == name.lower() and key != name]:
        del headers[other]
    headers[name] = value
