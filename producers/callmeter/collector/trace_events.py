"""The Monitor hook's JSON, turned into events. Pure.

The hook posts ``call_begin`` and ``call_end`` of a module: event, call_id, module_name,
module_description, timestamp (epoch seconds), then inputs, or duration, outputs, exception and
success. A module's run is an operation of its own (``node``), never a billable call: what it spent
comes from the model calls inside it.
"""

from __future__ import annotations

import math
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import orjson

from callmeter.ids import span_id, uuid8
from callmeter.schema.events import CallBegin, CallEnd

OPERATION = "node"
MAX_PAYLOAD_BYTES = 64 * 1024
_MAX_TEXT = 2000
_MAX_TIME_S = 4_102_444_800  # the year 2100, as the schema's
_TRACE_ID = re.compile(r"[0-9a-f]{32}\Z")


class TraceError(ValueError):
    """The JSON is not a trace; says which field is wrong."""


@dataclass(frozen=True, slots=True)
class TraceEvent:
    """One event as an envelope's line. ``key`` is what tells a repetition: (call_id, event)."""

    key: tuple[str, str]
    call_id: str
    begins: bool
    line: bytes


def trace_event(raw: object) -> TraceEvent:
    """From the hook's JSON; ``TraceError`` if a required field is missing or wrong."""
    if not isinstance(raw, dict):
        raise TraceError("a trace is a JSON object")
    event = raw.get("event")
    if event not in ("call_begin", "call_end"):
        raise TraceError("'event' is neither call_begin nor call_end")
    given = raw.get("call_id")
    if not isinstance(given, str) or not 1 <= len(given) <= 256:
        raise TraceError("'call_id' is not text of at most 256 characters")
    call_id = canonical_id(given)
    ts_us = _micros(raw, "timestamp")
    name = _text(raw, "module_name")[:256]
    common: dict[str, Any] = {
        "ts_us": ts_us,
        "call_id": call_id,
        "trace_id": _trace_id(raw, call_id),
        "operation": OPERATION,
        "name": name,
        "node": name,
        "attributes": _attributes(raw, given, call_id),
    }
    parent = raw.get("parent_call_id")
    if isinstance(parent, str) and parent:
        common["parent_span_id"] = span_id(canonical_id(parent))
    build = _begin if event == "call_begin" else _end
    return TraceEvent((call_id, event), call_id, event == "call_begin", build(raw, ts_us, common))


def canonical_id(given: str) -> str:
    """A call's id as UUID text: its own if it is one, else one made from it, the same each time."""
    try:
        return str(uuid.UUID(given))
    except ValueError:
        return uuid8(b"callmeter.trace", given.encode("utf-8", "surrogatepass"))


def _begin(raw: Mapping[str, Any], ts_us: int, common: dict[str, Any]) -> bytes:
    payload, cut = _payload(raw, "inputs")
    return _encode(CallBegin(started_us=ts_us, cut=cut, **payload, **common))


def _end(raw: Mapping[str, Any], ts_us: int, common: dict[str, Any]) -> bytes:
    payload, cut = _payload(raw, "outputs")
    exception = raw.get("exception")
    if "duration" in raw:
        duration_us = _micros(raw, "duration")
        payload["latency_us"] = duration_us
    else:
        duration_us = 0
    # Text in ``exception`` is a failure even where ``success`` is missing.
    failed = raw.get("success") is False or (raw.get("success") is None and exception is not None)
    return _encode(
        CallEnd(
            started_us=max(ts_us - duration_us, 0),
            status="error" if failed else "ok",
            error_message=str(exception)[:_MAX_TEXT] if exception is not None else "",
            cut=cut,
            **payload,
            **common,
        )
    )


def _payload(raw: Mapping[str, Any], name: str) -> tuple[dict[str, Any], list[str]]:
    """The field as raw JSON, or the word that it was cut because it is too large."""
    value = raw.get(name)
    if value is None:
        return {}, []
    data = orjson.dumps(value)
    if len(data) > MAX_PAYLOAD_BYTES:
        return {}, [name]
    return {name: msgspec.Raw(data)}, []


def _attributes(raw: Mapping[str, Any], given: str, call_id: str) -> dict[str, str]:
    attributes = {}
    description = _text(raw, "module_description")
    if description:
        attributes["module_description"] = description[:_MAX_TEXT]
    if given.lower() != call_id:
        attributes["monitor_call_id"] = given
    return attributes


def _trace_id(raw: Mapping[str, Any], call_id: str) -> str:
    given = raw.get("trace_id")
    if isinstance(given, str) and _TRACE_ID.match(given):
        return given
    return call_id.replace("-", "")


def _micros(raw: Mapping[str, Any], name: str) -> int:
    value = raw.get(name)
    # isinstance of bool is an int: true is no time.
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise TraceError(f"{name!r} is not a number of seconds")
    if not 0 <= value <= _MAX_TIME_S:
        raise TraceError(f"{name!r} is out of range")
    return round(value * 1_000_000)


def _text(raw: Mapping[str, Any], name: str) -> str:
    value = raw.get(name)
    return value if isinstance(value, str) else ""


def _encode(event: CallBegin | CallEnd) -> bytes:
    return msgspec.json.encode(event)
