"""W3C trace context, read and written (https://www.w3.org/TR/trace-context/, section 3.2)."""

from __future__ import annotations

import re

from callmeter.sdk.context import ForeignTrace, Labels, Surroundings

_TRACEPARENT = re.compile(
    r"\s*([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?\s*\Z"
)


def frame_from_traceparent(text: str, labels: Labels) -> Surroundings | None:
    """The frame of a ``traceparent`` header; None if it is not valid, and a new trace begins."""
    found = _TRACEPARENT.match(text)
    if found is None:
        return None
    version, trace_id, span_id, flags, rest = found.groups()
    if (
        version == "ff"
        or (version == "00" and rest)
        or not int(trace_id, 16)
        or not int(span_id, 16)
    ):
        return None
    return Surroundings(ForeignTrace(trace_id), span_id, bool(int(flags, 16) & 1), labels)
