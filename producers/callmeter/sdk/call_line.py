"""The line of an ordinary call, joined from pieces that were encoded before.

A program has few places that call a model, and each names the same attributes every time. So what
lies between their values is made once for each combination of names, most texts are remembered as
JSON, and a line is one join: a third of the time of building a dict and encoding it. Byte for byte
what ``Encoder.call_end`` makes; what is not ordinary is left to it
(docs/decisions/0021-fewer-cycles-an-event.md).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import orjson

from callmeter.sdk.callids import halves_of, span_of
from callmeter.sdk.event_fields import (
    HOMES,
    MAX_DIM_CHARS,
    MAX_DURATION_US,
    MAX_LINE_BYTES,
    MAX_UNITS,
    NUMBER_FIELDS,
    usage_of,
)
from callmeter.sdk.scrub import REDACTED

if TYPE_CHECKING:
    from callmeter.sdk.context import Labels
    from callmeter.sdk.ended import Ended

#: Combinations of names, and of labels, that are remembered; then begun anew.
MAX_PLANS = 512
#: Texts that are remembered as JSON, and the longest of them.
MAX_TEXTS = 4096
MAX_TEXT_CHARS = 64
#: A text that was not known so often is encoded each time from then on: it is another every time.
MAX_MISSES = 64
#: Of what is seldom given, this leaves no trace in ``call_end``.
_SILENT = frozenset({"frame", "estimate_pico", "counted"})
#: Fields whose place in the event is not among the others.
_ELSEWHERE = frozenset({"name", "phase", "program", "status"})

_Values = tuple[Any, ...]
_Pick = Callable[[_Values], _Values]
#: What a value is: an attribute, a field that is text, or a number from lowest to highest.
_Kind = str | None | tuple[int, int]
_ATTRIBUTE = "attribute"


_NOTHING: dict[str, Any] = {}


class _Plan:
    """How the values of one combination of names become a line."""

    __slots__ = ("constants", "misses", "operation", "pick", "spare", "varied", "wanted")

    def __init__(
        self, constants: list[str], wanted: list[tuple[int, _Kind]], operation: int, spare: int
    ) -> None:
        #: The JSON between the values; every second place is a value's.
        self.constants = constants
        #: What is shown, in the order of the wire: where it is among the values, and its kind.
        self.wanted = wanted
        #: Where the operation is among the values.
        self.operation = operation
        #: Where a text is among the values that stands in for those that vary.
        self.spare = spare
        #: What is not looked up: place among ``constants``, among the values, kind.
        self.varied: list[tuple[int, int, _Kind]] = []
        #: A number is never looked up: a text in its place must not pass.
        self.misses = [MAX_MISSES + 1 if isinstance(kind, tuple) else 0 for _, kind in wanted]
        self.pick: _Pick
        self.settle()

    def settle(self) -> None:
        """Decide anew what is looked up."""
        varies = [misses > MAX_MISSES for misses in self.misses]
        self.varied = [(2 * at + 1, *self.wanted[at]) for at, each in enumerate(varies) if each]
        places = [
            self.spare if each else place
            for each, (place, _) in zip(varies, self.wanted, strict=True)
        ]
        # itemgetter reads a tuple only if it is given two places or more
        self.pick = itemgetter(*places) if len(places) > 1 else _few(places)


class CallLines:
    """Makes lines of calls. One thread at a time."""

    def __init__(self, tags: Mapping[str, str], redact: frozenset[str]) -> None:
        self._tags = tags
        self._redact = redact
        self._plans: dict[tuple[str | None, ...], _Plan | None] = {}
        self._labels: dict[Labels, str] = {}
        self._texts: dict[str, str] = {}
        self._floats: dict[float, str] = {}

    def line(self, call: Ended) -> bytes | None:
        """The ``call_end`` of a call that has ended; None if it is not an ordinary one."""
        extra = call.extra
        if extra is not None and not _SILENT.issuperset(extra):
            return None
        fields, later = call.fields, call.later or _NOTHING
        # The text between the two is the operation where none is given.
        names: tuple[str | None, ...] = (*fields, None, *later)
        values = (*fields.values(), "chat", *later.values())
        try:
            plan = self._plans[names]
        except KeyError:
            plan = self._learn(names)
        if plan is None:
            return None
        try:
            try:
                return self._joined(call, plan, values)
            except KeyError:
                self._meet(call, plan, values)
                return self._joined(call, plan, values)
        except (KeyError, TypeError):  # a value, or a text, that needs another look
            return None

    def _joined(self, call: Ended, plan: _Plan, values: _Values) -> bytes:
        """``TypeError`` if something is not as usual, ``KeyError`` for a text not known yet."""
        known = self._texts
        parts = plan.constants.copy()
        parts[1::2] = map(known.__getitem__, plan.pick(values))
        for at, place, kind in plan.varied:
            parts[at] = self._text(values[place], kind)
        operation, name = values[plan.operation], call.name
        if not operation:
            raise TypeError("an empty operation")
        around = f',"name":{known[name]}' if name else ""
        units = call.units
        if units is not None:
            parts.append(_usage_json(units))

        wall_ns, mono_ns = call.anchor
        began_ns, root, labels = call.start_ns, call.root, call.labels
        started_ns = wall_ns + began_ns - mono_ns
        started_us = started_ns // 1000
        latency_us = (call.end_ns - began_ns) // 1000
        first, second = halves_of(started_ns, call.span)
        if root is None:
            parent, trace = "", first + second
        else:
            parent, trace = _above(call), root.trace_id
        parts[0] = (
            f'{{"kind":"call_end","ts_us":{started_us + latency_us},"call_id":"'
            f"{first[:8]}-{first[8:12]}-{first[12:]}-{second[:4]}-{second[4:]}"
            f'","trace_id":"{trace}","started_us":{started_us},"operation":'
            f"{known[operation]}{parent}{around}"
            f"{self._labels.get(labels) or self._around(labels)}"
            f'{min(latency_us, MAX_DURATION_US)},"status":"ok"'
            f"{parts[0]}"
        )
        parts.append("}")
        line = "".join(parts).encode()
        if len(line) > MAX_LINE_BYTES:
            raise TypeError("too large as it is")
        return line

    def _learn(self, names: tuple[str | None, ...]) -> _Plan | None:
        if len(self._plans) >= MAX_PLANS:
            self._plans.clear()
        try:
            plan = self._plan(names)
        except TypeError:  # a name that is no text, or none that JSON can say
            plan = None
        self._plans[names] = plan
        return plan

    def _plan(self, names: tuple[str | None, ...]) -> _Plan | None:
        # What is said later takes the value's place, not the name's: as a dict does it.
        places: dict[str, int] = {name: at for at, name in enumerate(names) if name is not None}
        dims: list[str] = []
        attributes: list[str] = []
        for name in places:
            if name in _ELSEWHERE or (name in HOMES and name.lower() in self._redact):
                return None
            if name != "operation":
                (dims if name in HOMES else attributes).append(name)
        constants = [""]
        shown: list[str] = []
        for name in dims:
            constants[-1] += f",{_json(name)}:"
            constants += ["", ""]
            shown.append(name)
        for nth, name in enumerate(attributes):
            constants[-1] += "," if nth else ',"attributes":{'
            constants[-1] += f"{_json(name)}:"
            if name.lower() in self._redact:
                constants[-1] += _json(REDACTED)
            else:
                constants += ["", ""]
                shown.append(name)
        if attributes:
            constants[-1] += "}"
        spare = names.index(None)
        wanted = [(places[n], NUMBER_FIELDS.get(n) if n in HOMES else _ATTRIBUTE) for n in shown]
        return _Plan(constants, wanted, places.get("operation", spare), spare)

    def _meet(self, call: Ended, plan: _Plan, values: _Values) -> None:
        """Remember the texts of a call that are new. ``TypeError`` if it is not an ordinary one."""
        for at, (place, _) in enumerate(plan.wanted):
            value = values[place]
            if type(value) is not str or len(value) > MAX_TEXT_CHARS:
                plan.misses[at] = MAX_MISSES + 1
            elif value not in self._texts:
                plan.misses[at] += 1
                self._remember(value)
        plan.settle()
        for text in (values[plan.operation], values[plan.spare], call.name):
            if text:
                _need(type(text) is str and 0 < len(text) <= MAX_DIM_CHARS)
                self._remember(text)

    def _remember(self, text: str) -> None:
        if len(self._texts) >= MAX_TEXTS:
            self._texts.clear()
        self._texts[text] = _json(text)

    def _around(self, labels: Labels) -> str:
        """The JSON of what surrounds many calls (phase, program and tags), up to the latency."""
        if len(self._labels) >= MAX_PLANS:
            self._labels.clear()
        event: dict[str, Any] = {}
        for name, text in (("phase", labels.phase), ("program", labels.program)):
            if text:
                _need(type(text) is str and len(text) <= MAX_DIM_CHARS)
                event[name] = text
        if self._tags or labels.tags:
            tags = {**self._tags, **labels.tags}
            _need(all(type(text) is str for text in tags.values()))
            hidden = self._redact
            event["tags"] = {k: REDACTED if k.lower() in hidden else v for k, v in tags.items()}
        found = f'{"," if event else ""}{_json(event)[1:-1]},"latency_us":'
        self._labels[labels] = found
        return found

    def _text(self, value: Any, kind: _Kind) -> str:
        """A value that is not known as JSON; ``TypeError`` for one that needs another look."""
        made = type(value)
        if isinstance(kind, tuple):
            _need(made is int and kind[0] <= value <= kind[1])
            return str(value)
        if made is str:
            _need(kind is _ATTRIBUTE or len(value) <= MAX_DIM_CHARS)
            return self._texts.get(value) or _json(value)
        if made is int:
            return f'"{value}"'
        _need(kind is _ATTRIBUTE)
        if made is float:
            return self._floats.get(value) or self._float(value)
        _need(made is bool)
        return '"true"' if value else '"false"'

    def _float(self, value: float) -> str:
        found = f'"{value!r}"'
        if value:  # 0.0 and -0.0 are equal, and two texts
            if len(self._floats) >= MAX_TEXTS:
                self._floats.clear()
            self._floats[value] = found
        return found


def _above(call: Ended) -> str:
    """The JSON that names the parent."""
    parent, root = call.parent, call.root
    _need(parent is not None and root is not None and root.trace_id.isalnum())
    span = span_of(parent) if isinstance(parent, int) else str(parent)
    _need(span.isalnum())
    return f',"parent_span_id":"{span}"'


def _need(ordinary: bool) -> None:
    if not ordinary:
        raise TypeError("not an ordinary call")


def _usage_json(units: Any) -> str:
    if type(units) is tuple:
        first, second, more = units
        if (
            type(first) is int is type(second)
            and not more
            and 0 <= first <= MAX_UNITS
            and 0 <= second <= MAX_UNITS
        ):
            return f',"usage":{{"input":{first},"output":{second}}}'
    return f',"usage":{_json(usage_of(units))}'


def _few(places: list[int]) -> _Pick:
    return lambda values: tuple(values[place] for place in places)


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()
