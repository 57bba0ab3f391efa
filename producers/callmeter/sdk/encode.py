"""From what callers noted down to the lines of an envelope. Runs on the shipper's thread."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import orjson

from callmeter.sdk.call_line import CallLines
from callmeter.sdk.callids import digits_of, span_of, uuid_of
from callmeter.sdk.event_fields import (
    BEGIN,
    HOMES,
    MAX_DIM_CHARS,
    MAX_DURATION_US,
    MAX_LINE_BYTES,
    NUMBER,
    NUMBER_FIELDS,
    usage_of,
)
from callmeter.sdk.scrub import REDACTED, cut_text, cut_texts, redact, valid_unicode

if TYPE_CHECKING:
    from callmeter.sdk.call import Call
    from callmeter.sdk.ended import Ended
    from callmeter.settings import Settings

#: Operations whose calls are model calls: those of ``callmeter.schema.events``, which the SDK does
#: not import (msgspec); a test holds them equal.
MODEL_OPERATIONS = frozenset({"chat", "text_completion", "embeddings", "generate_content"})
#: What a model call becomes when the call inside it is the billable one.
WRAPPER_OPERATION = "invoke_model"

#: A metric as it is queued: (METRIC, anchor, monotonic ns, name, value, step, labels, ts).
METRIC = "metric"
#: Any other event as it is queued: (EVENT, the event as a dict).
EVENT = "event"


class TooLargeError(ValueError):
    """An event that no cutting makes small enough."""


class Encoder:
    """Builds lines. Holds what the settings say about redaction and recorded text."""

    def __init__(self, settings: Settings) -> None:
        self._redact = frozenset(key.lower() for key in settings.redact_keys)
        self._max_text = settings.max_text_chars
        self._tags = dict(settings.tags or {})
        self._call_lines = CallLines(self._tags, self._redact)

    def line(self, item: Any) -> bytes:
        """The line of a queued item. ``TooLargeError`` or any encoding error is the caller's."""
        if type(item) is not tuple:
            return self._call_lines.line(item) or self._dumps(self.call_end(item))
        if item[0] is METRIC:
            return self._dumps(self._metric(item))
        return self._dumps(self._scrubbed(item[1]))

    def begin_line(self, call: Call) -> bytes:
        """The ``call_begin`` of a call that is still open."""
        event = self._call(call, "call_begin")
        event["ts_us"] = event["started_us"]
        self._fields(event, _said(call), ended=False)
        extra = call.extra
        if extra is not None:
            if "estimate_pico" in extra:
                event["estimate_pico"] = extra["estimate_pico"]
            self._recorded(event, extra, ("inputs",))
        return self._dumps(event)

    def call_end(self, call: Ended) -> dict[str, Any]:
        """The ``call_end`` of a call that has ended."""
        event = self._call(call, "call_end")
        latency_us = (call.end_ns - call.start_ns) // 1000
        event["ts_us"] = event["started_us"] + latency_us
        event["latency_us"] = min(MAX_DURATION_US, latency_us)
        event["status"] = "ok"
        self._fields(event, call.fields if call.later is None else _said(call), ended=True)
        units = call.units
        if units is not None:
            event["usage"] = usage_of(units)
        extra = call.extra
        if extra is not None:
            self._extra(event, call, extra)
        return event

    def _call(self, call: Call | Ended, kind: str) -> dict[str, Any]:
        """What begin and end share, in the order of the record type."""
        labels = call.labels
        wall_ns, mono_ns = call.anchor
        started_ns = wall_ns + call.start_ns - mono_ns  # Call.started_ns, without the property
        digits = digits_of(started_ns, call.span)
        root = call.root
        event: dict[str, Any] = {
            "kind": kind,
            "ts_us": 0,
            "call_id": uuid_of(digits),
            "trace_id": digits if root is None else root.trace_id,
            "started_us": started_ns // 1000,
            "operation": "chat",
        }
        parent = call.parent
        if parent is not None:
            event["parent_span_id"] = parent if isinstance(parent, str) else span_of(parent)
        if call.name:
            event["name"] = _dim(event, "name", call.name)
        if labels.phase:
            event["phase"] = _dim(event, "phase", labels.phase)
        if labels.program:
            event["program"] = _dim(event, "program", labels.program)
        tags = labels.tags
        extra = call.extra
        own = None if extra is None else extra.get("tags")
        if self._tags or tags or own:
            merged = {**self._tags, **tags, **(own or {})}
            event["tags"] = self._texts(merged)
        return event

    def _fields(self, event: dict[str, Any], fields: Mapping[str, Any], *, ended: bool) -> None:
        if self._redact:
            hidden = self._redact
            fields = {k: REDACTED if k.lower() in hidden else v for k, v in fields.items()}
        attributes: dict[str, str] = {}
        home_of, text_of = HOMES.get, self._text
        for key, value in fields.items():
            home = home_of(key)
            if home is None:
                if type(value) is str:
                    attributes[key] = value
                elif value is not None:
                    attributes[key] = text_of(value)
            elif home is NUMBER:
                low, high = NUMBER_FIELDS[key]
                if ended and isinstance(value, int) and low <= value <= high:
                    event[key] = int(value)
            elif value is not None and (ended or home is BEGIN):
                text = value if type(value) is str else str(value)
                event[key] = text if len(text) <= MAX_DIM_CHARS else _dim(event, key, text)
        if attributes:
            event["attributes"] = attributes
        if not event["operation"]:
            event["operation"] = "chat"

    def _extra(self, event: dict[str, Any], call: Ended, extra: Mapping[str, Any]) -> None:
        """What few calls have: failure, cost, first token, recorded text."""
        error = extra.get("error")
        if error is not None:
            event["status"], event["error_type"], text, code = error
            event["error_message"] = text
            if code is not None and 0 <= code <= 999:
                event.setdefault("http_status", code)
        first_ns = extra.get("first_ns")
        if first_ns is not None:
            event["ttft_us"] = max(0, (first_ns - call.start_ns) // 1000)
        cost = extra.get("cost")
        if cost is not None:
            event["cost_pico"], event["cost_source"] = str(cost[0]), cost[1][:MAX_DIM_CHARS]
        if "wraps" in extra:
            event["operation"] = WRAPPER_OPERATION
            for name in ("usage", "cost_pico", "cost_source"):
                event.pop(name, None)
        self._recorded(event, extra, ("inputs", "outputs"))

    def _recorded(
        self, event: dict[str, Any], extra: Mapping[str, Any], names: tuple[str, ...]
    ) -> None:
        for name in names:
            if name in extra:
                value = redact(extra[name], self._redact) if self._redact else extra[name]
                event[name], was_cut = cut_texts(value, self._max_text)
                if was_cut:
                    _mark(event, name)

    def _metric(self, item: tuple[Any, ...]) -> dict[str, Any]:
        _, (wall_ns, mono_ns), at_ns, name, value, step, labels, ts_us, more = item
        event: dict[str, Any] = {
            "kind": "metric",
            "ts_us": (wall_ns + at_ns - mono_ns) // 1000 if ts_us is None else ts_us,
            "name": name,
            "value": value,
        }
        if step is not None:
            event["step"] = step
        if labels:
            event["labels"] = self._texts(labels)
        if more:
            event.update(more)
        return event

    def _scrubbed(self, event: dict[str, Any]) -> dict[str, Any]:
        """An event that was built by the caller, with what must not leave redacted."""
        if self._redact:
            for name in ("metadata", "meta", "tags"):
                if name in event:
                    event[name] = redact(event[name], self._redact)
        return event

    def _texts(self, values: Mapping[str, Any]) -> dict[str, str]:
        hidden = self._redact
        return {
            key: REDACTED
            if hidden and key.lower() in hidden
            else value
            if type(value) is str
            else self._text(value)
            for key, value in values.items()
            if value is not None
        }

    def _text(self, value: Any) -> str:
        """A value that is no text as JSON text."""
        kind = type(value)
        if kind is bool:
            return "true" if value else "false"
        if kind is int:
            return str(value)
        if kind is float:
            return repr(value) if math.isfinite(value) else str(value)
        if isinstance(value, dict | list | tuple):
            plain = redact(value, self._redact) if self._redact else value
            try:
                return orjson.dumps(plain).decode()
            except TypeError:
                return orjson.dumps(valid_unicode(plain), default=str).decode()
        return str(value)

    def _dumps(self, event: dict[str, Any]) -> bytes:
        try:
            line = orjson.dumps(event)
        except TypeError:  # a lone surrogate, an integer beyond 64 bits
            line = orjson.dumps(valid_unicode(event), default=str)
        return line if len(line) <= MAX_LINE_BYTES else _cut_down(event)


def _said(call: Call | Ended) -> dict[str, Any]:
    """All that was said of a call; copied at once, since an open one may still be told more."""
    later = call.later
    return dict(call.fields) if later is None else {**call.fields, **later}


def _cut_down(event: dict[str, Any]) -> bytes:
    """Make an event fit: recorded text goes first, then long attributes. Each is marked in
    ``cut``.
    """
    for name in ("outputs", "inputs"):
        if event.pop(name, None) is not None:
            _mark(event, name)
            line = orjson.dumps(valid_unicode(event), default=str)
            if len(line) <= MAX_LINE_BYTES:
                return line
    for name in ("attributes", "tags"):
        values = event.get(name)
        if values:
            event[name] = {k: cut_text(v, MAX_DIM_CHARS) for k, v in values.items()}
            _mark(event, name)
    line = orjson.dumps(valid_unicode(event), default=str)
    if len(line) > MAX_LINE_BYTES:
        raise TooLargeError(f"{event['kind']}: {len(line)} bytes")
    return line


def _dim(event: dict[str, Any], name: str, text: str) -> str:
    if len(text) <= MAX_DIM_CHARS:
        return text
    _mark(event, name)
    return cut_text(text, MAX_DIM_CHARS)


def _mark(event: dict[str, Any], name: str) -> None:
    cut = event.setdefault("cut", [])
    if name not in cut:
        cut.append(name)
