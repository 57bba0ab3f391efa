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

from callmeter.sdk.callids import VARIANT, span_of
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
#: Combinations of texts that are remembered for one combination of names. One more, and the text
#: that varies most among them is encoded each time from then on.
MAX_SHAPES = 256
#: Of all combinations of names together, about a kilobyte each; then all are begun anew.
MAX_ALL_SHAPES = 4096
#: Texts that are remembered as JSON, and the longest of them.
MAX_TEXTS = 4096
MAX_TEXT_CHARS = 64
#: Of what is seldom given, this leaves no trace in ``call_end``.
_SILENT = frozenset({"frame", "estimate_pico", "counted"})
#: Fields whose place in the event is not among the others.
_ELSEWHERE = frozenset({"name", "phase", "program", "status"})
_HEX = [f"{number:03x}" for number in range(4096)]
_DECIMAL = [f"{number:03d}" for number in range(1000)]

_Values = tuple[Any, ...]
_Pick = Callable[[_Values], _Values]
#: What a value is: an attribute, a field that is text, or a number from lowest to highest.
_Kind = str | None | tuple[int, int]
_ATTRIBUTE = "attribute"
#: The operation, and the JSON around the values that are not in the shape.
_Shape = tuple[str, list[str]]


class _Plan:
    """How the values of one combination of names become a line."""

    __slots__ = ("constants", "operation", "pick", "shapes", "varied", "wanted")

    def __init__(
        self, constants: list[str], wanted: list[tuple[int, _Kind]], operation: int
    ) -> None:
        #: The JSON around the values: one more than they are.
        self.constants = constants
        #: What is shown, in the order of the wire: where it is among the values, and its kind.
        self.wanted = wanted
        #: Where the operation is among the values.
        self.operation = operation
        #: What is made of each combination of texts.
        self.shapes: dict[_Values, _Shape] = {}
        #: What is in no shape: place among a shape's pieces, among the values, kind. Numbers, for
        #: 1 and True and 1.0 are one key; and texts that are another every time.
        self.varied: list[tuple[int, int, _Kind]] = []
        self.pick: _Pick
        self.vary({at for at, (_, kind) in enumerate(wanted) if isinstance(kind, tuple)})

    def vary(self, which: set[int]) -> None:
        """Besides what varies already, so do these of ``wanted``; the shapes begin anew."""
        known = {place for _, place, _ in self.varied}
        known |= {self.wanted[at][0] for at in which}
        varied = [one for one in self.wanted if one[0] in known]
        self.varied = [(2 * nth + 1, *one) for nth, one in enumerate(varied)]
        places = [place for place, _ in self.wanted if place not in known]
        # itemgetter makes a tuple only if it is given two places or more.
        self.pick = itemgetter(self.operation, self.operation, *places)
        self.shapes = {}


class CallLines:
    """Makes lines of calls. One thread at a time."""

    def __init__(self, tags: Mapping[str, str], redact: frozenset[str]) -> None:
        self._tags = tags
        self._redact = redact
        self._plans: dict[tuple[str | None, ...], _Plan | None] = {}
        self._labels: dict[Labels, str] = {}
        self._names: dict[str, str] = {}
        self._texts: dict[str, str] = {}
        self._shapes = 0
        self._floats: dict[float, str] = {}
        #: The millisecond of the last call's begin, in ns, µs, decimal and hex digits.
        self._ms_ns = self._ms_us = -(2**63)
        self._ms_text = self._ms_digits = self._ms_dashed = ""

    def line(self, call: Ended) -> bytes | None:
        """The ``call_end`` of a call that has ended; None if it is not an ordinary one."""
        extra, later = call.extra, call.later
        if extra is not None and not _SILENT.issuperset(extra):
            return None
        fields = call.fields
        # The text between the two is the operation where none is given.
        names: tuple[str | None, ...]
        if later is None:
            names = (*fields, None)
            values = (*fields.values(), "chat")
        else:
            names = (*fields, None, *later)
            values = (*fields.values(), "chat", *later.values())
        try:
            try:
                plan = self._plans[names]
            except KeyError:
                plan = self._learn(names)
            if plan is None:
                return None
            try:
                shape = plan.shapes[plan.pick(values)]
            except KeyError:
                shape = self._meet(plan, values)
            return self._joined(call, plan, shape, values)
        except TypeError:  # a value, or a text, that needs another look
            return None

    def _joined(  # noqa: PLR0912  # a function for each branch would cost as much as the branch
        self, call: Ended, plan: _Plan, shape: _Shape, values: _Values
    ) -> bytes:
        """``TypeError`` if something is not as usual."""
        operation, parts = shape
        parts = parts.copy()
        for at, place, kind in plan.varied:
            value = values[place]
            cls = type(value)
            if kind is not _ATTRIBUTE:
                parts[at] = self._field(value, kind)
            elif cls is str:
                parts[at] = self._texts.get(value) or _json(value)
            elif cls is int:
                parts[at] = f'"{value}"'
            elif cls is float:
                parts[at] = self._floats.get(value) or self._float(value)
            else:
                _need(cls is bool)
                parts[at] = '"true"' if value else '"false"'
        units = call.units
        if units is None:
            parts.append("}")
        elif type(units) is tuple:
            given, made, more = units
            if (
                type(given) is int is type(made)
                and more is None
                and 0 <= given <= MAX_UNITS
                and 0 <= made <= MAX_UNITS
            ):
                parts.append(f',"usage":{{"input":{given},"output":{made}}}}}')
            else:
                parts.append(f',"usage":{_json(usage_of(units))}}}')
        else:
            parts.append(f',"usage":{_json(usage_of(units))}}}')

        wall_ns, mono_ns = call.anchor
        began_ns, root, labels = call.start_ns, call.root, call.labels
        rest_ns = wall_ns - mono_ns + began_ns - self._ms_ns
        if not 0 <= rest_ns < 1_000_000:
            rest_ns = self._next_ms(rest_ns + self._ms_ns)
        # A UUIDv7 as in callids.halves_of, from digits that are known.
        fraction = _HEX[rest_ns * 4096 // 1_000_000]
        low = (VARIANT | call.span).to_bytes(8, "big").hex()
        rest_us = rest_ns // 1000
        latency_us = (call.end_ns - began_ns) // 1000
        name = call.name
        named = (self._names.get(name) or self._name(name)) if name else ""
        if root is None:
            trace = f"{self._ms_digits}{fraction}{low}"
        else:
            # Who is above comes right after the operation.
            trace, operation = root.trace_id, f"{operation}{_above(call)}"
        parts[0] = (
            f'{{"kind":"call_end","ts_us":{self._ms_us + rest_us + latency_us},"call_id":"'
            f"{self._ms_dashed}{fraction}-{low[:4]}-{low[4:]}"
            f'","trace_id":"{trace}","started_us":{self._ms_text}{_DECIMAL[rest_us]}'
            f"{operation}{named}{self._labels.get(labels) or self._around(labels)}"
            f"{latency_us}{parts[0]}"
        )
        line = "".join(parts).encode()
        if len(line) > MAX_LINE_BYTES or latency_us > MAX_DURATION_US:
            raise TypeError("too large as it is")
        return line

    def _next_ms(self, started_ns: int) -> int:
        """Another millisecond begins: its digits. Returns how far into it the call began."""
        ms, rest_ns = divmod(started_ns, 1_000_000)
        _need(0 < ms < 2**48)
        self._ms_ns, self._ms_us, self._ms_text = started_ns - rest_ns, ms * 1000, str(ms)
        digits = f"{ms:012x}"
        self._ms_digits, self._ms_dashed = f"{digits}7", f"{digits[:8]}-{digits[8:]}-7"
        return rest_ns

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
        constants = [',"status":"ok"']
        shown: list[str] = []
        for name in dims:
            constants[-1] += f",{_json(name)}:"
            constants.append("")
            shown.append(name)
        for nth, name in enumerate(attributes):
            constants[-1] += "," if nth else ',"attributes":{'
            constants[-1] += f"{_json(name)}:"
            if name.lower() in self._redact:
                constants[-1] += _json(REDACTED)
            else:
                constants.append("")
                shown.append(name)
        if attributes:
            constants[-1] += "}"
        wanted = [(places[n], NUMBER_FIELDS.get(n) if n in HOMES else _ATTRIBUTE) for n in shown]
        return _Plan(constants, wanted, places.get("operation", names.index(None)))

    def _meet(self, plan: _Plan, values: _Values) -> _Shape:
        """A combination of texts that is new. ``TypeError`` if it is not an ordinary one."""
        odd = set()
        for at, (place, _) in enumerate(plan.wanted):
            value = values[place]
            if type(value) is not str or len(value) > MAX_TEXT_CHARS:
                odd.add(at)
        varied = {place for _, place, _ in plan.varied}
        if len(plan.shapes) >= MAX_SHAPES:
            seen = [set(column) for column in zip(*plan.shapes, strict=True)]
            still = [at for at, (place, _) in enumerate(plan.wanted) if place not in varied]
            # Where the operation varies most, the shapes are only begun anew.
            odd |= {at for at, texts in zip(still, seen[2:], strict=True)
                    if len(texts) == max(map(len, seen))}  # fmt: skip
            plan.shapes.clear()
        if not odd <= {at for at, (place, _) in enumerate(plan.wanted) if place in varied}:
            plan.vary(odd)
            varied = {place for _, place, _ in plan.varied}
        operation = values[plan.operation]
        _need(type(operation) is str and 0 < len(operation) <= MAX_DIM_CHARS)
        parts = [""]
        for constant, one in zip(plan.constants, (*plan.wanted, None), strict=True):
            parts[-1] += constant
            if one is not None and one[0] in varied:
                parts += ["", ""]
            elif one is not None:
                parts[-1] += self._known(values[one[0]])
        if self._shapes >= MAX_ALL_SHAPES:
            self._plans.clear()  # this one makes the line under way, and is learnt anew
            self._shapes = 0
        self._shapes += 1
        shape = plan.shapes[plan.pick(values)] = f',"operation":{self._known(operation)}', parts
        return shape

    def _name(self, name: str) -> str:
        _need(type(name) is str and len(name) <= MAX_DIM_CHARS)
        if len(self._names) >= MAX_TEXTS:
            self._names.clear()
        found = self._names[name] = f',"name":{_json(name)}'
        return found

    def _known(self, text: str) -> str:
        found = self._texts.get(text)
        if found is None:
            if len(self._texts) >= MAX_TEXTS:
                self._texts.clear()
            found = self._texts[text] = _json(text)
        return found

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

    def _field(self, value: Any, kind: _Kind) -> str:
        """A field that is not in the shape; ``TypeError`` for one that needs another look."""
        if isinstance(kind, tuple):
            _need(type(value) is int and kind[0] <= value <= kind[1])
            return str(value)
        if type(value) is str:
            _need(len(value) <= MAX_DIM_CHARS)
            return self._texts.get(value) or _json(value)
        _need(type(value) is int)
        return f'"{value}"'

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


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()
