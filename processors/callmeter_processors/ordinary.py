"""Ordinary lines: calls that compiled code reads, prices, counts and writes.

Nearly every line is a call that says nothing unusual, and most of what a line cost was objects of
Python that were made of it, looked at once and encoded again. ``_ordinary`` (Cython) takes such a
line from the envelope to the metered record without them. A line is ordinary if it would be read,
by any reader, as what the judge would write of it, but for its cost: a ``call_end`` without blanks
and escapes whose fields are all known, each there once, within its limits, with no recorded text
and no cost of its own. All others are the judge's. Without a compiler at the time of installation
all of them are: twice the CPU, the same sums (docs/decisions/0026-compiled-ordinary-lines.md).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol, cast

from msgspec import NODEFAULT, UNSET, inspect

from callmeter.schema.events import CallEnd
from callmeter_processors.foldrow import Alike
from callmeter_processors.lines import lines_of
from callmeter_processors.worth import Pricer

try:
    from callmeter_processors._call_line import Kind
    from callmeter_processors._ordinary import OrdinaryReader

    _COMPILED = True
except ImportError:
    _COMPILED = False

#: Lines that are judged, folded and encoded together: so many that what they were decoded to is
#: still in the processor's first cache (docs/decisions/0021).
LINES_AT_A_TIME = 32
#: What the judge has to parse and write anew, and what no ordinary call says.
_JUDGED = frozenset({"cost_pico", "cost_source", "price_version", "inputs", "outputs", "cut"})
#: Texts of a row's key; its minute and the units go without saying.
_ROW_KEY = [b"provider", b"model", b"operation", b"phase", b"status"]
_ANY_LENGTH = 2**62

#: Some lines as they are written, or some that the judge has to see.
Run = bytes | list[bytes]


class Reader(Protocol):
    """Takes what it can of an accepted envelope. Has the state of a line: one for each meter."""

    def count(self, value: bytes) -> int:
        """How many lines an envelope has, its header among them."""

    def read(
        self,
        value: bytes,
        fence_us: int,
        known: dict[bytes, Alike],
        meet: Callable[[CallEnd], Alike],
        pricer: Pricer,
    ) -> list[Run]:
        """The envelope's lines in their order, without the header.

        Ordinary calls, none later than ``fence_us``, are added where their like are, which is in
        ``known`` or comes from ``meet``. A meter gives the same ``known`` as long as it folds into
        the same rows, and never looks into it.
        """


class EveryLine:
    """The reader where nothing was compiled: the judge sees every line."""

    def count(self, value: bytes) -> int:
        """Of all that Python has to count them, what splits them is the quickest."""
        return len(lines_of(value))

    def read(
        self,
        value: bytes,
        fence_us: int,
        known: dict[bytes, Alike],
        meet: Callable[[CallEnd], Alike],
        pricer: Pricer,
    ) -> list[Run]:
        """All lines, some at a time."""
        lines = lines_of(value)
        return [lines[at : at + LINES_AT_A_TIME] for at in range(1, len(lines), LINES_AT_A_TIME)]


def compiled() -> bool:
    """Whether ordinary lines are read by compiled code."""
    return _COMPILED


def new_reader() -> Reader:
    """The quickest reader there is here."""
    if not _COMPILED:
        return EveryLine()
    required = [field.encode_name.encode() for field in _call_end() if field.required]
    opening = b'{"kind":"call_end",'
    return OrdinaryReader(opening, list(_fields()), required, _ROW_KEY, LINES_AT_A_TIME, UNSET)


def _call_end() -> tuple[inspect.Field, ...]:
    return cast(inspect.StructType, inspect.type_info(CallEnd)).fields


def _fields() -> Iterator[tuple[bytes, int, int, int, Any]]:
    """The fields that an ordinary line may have, by their type: see ``_ordinary``."""
    for field in _call_end():
        if field.name in _JUDGED:
            continue
        name = field.encode_name.encode()
        default = UNSET if field.default is NODEFAULT else field.default
        if field.default_factory is not NODEFAULT:
            default = field.default_factory()
        yield name, *_limits(field.name, field.type), default


def _limits(name: str, of: inspect.Type) -> tuple[int, int, int]:
    """Kind, least and most of the values of a type."""
    match of:
        case inspect.Metadata(type=inspect.StrType(max_length=int(length))):
            # An id: the judge checks what its schema alone says (schema.events).
            return (Kind.UUID if length == 36 else Kind.HEX), length, length
        case inspect.IntType(ge=int(least), le=int(most)):
            return Kind.NUMBER, least, most
        case inspect.StrType(min_length=least, max_length=most):
            return Kind.TEXT, least or 0, most or _ANY_LENGTH
        case inspect.DictType(
            key_type=inspect.StrType(max_length=int(most_of_name)),
            value_type=inspect.IntType(le=int(most)),
        ):
            return Kind.COUNTS, most_of_name, most
        case inspect.DictType(value_type=inspect.StrType()):
            return Kind.TEXTS, 0, 0
    raise TypeError(f"no reader for field {name!r} of {of}")
