"""What each call costs its caller, in Python: used where ``hot`` finds nothing compiled.

``_hot.pyx`` is this file once more, in Cython; a change here is a change there, and the tests of
tests/unit/sdk run over both. Everything runs on the caller's thread: ids, clocks and one append
(docs/decisions/0013-hot-path.md has the measurements).
"""

from __future__ import annotations

import gc
import os
import random
import time
from collections import deque
from collections.abc import Callable
from contextvars import Token
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from callmeter.sdk.context import FRAME, Frame, Labels, Root
from callmeter.sdk.ended import Ended
from callmeter.sdk.freezing import freeze_map

if TYPE_CHECKING:
    from callmeter.sdk.call import Call
    from callmeter.sdk.intake import Intake

#: Wall and monotonic time read together: (wall ns, monotonic ns).
Anchor = tuple[int, int]

_is_tracked = gc.is_tracked
_frame = FRAME.get
_enter = FRAME.set
_leave = FRAME.reset


class HotIntake:
    """What every call touches of the intake."""

    __slots__ = ("alarm", "anchor", "bits", "keeps_all", "mono", "open", "queue")

    anchor: Anchor
    keeps_all: bool
    #: Queue length at which a caller does more than append.
    alarm: int

    def __init__(self) -> None:
        self.queue: deque[Any] = deque()
        #: Begun and not ended, the oldest first.
        self.open: dict[Call, None] = {}
        self.bits = random.Random(os.urandom(32)).getrandbits
        self.mono: Callable[[], int] = time.perf_counter_ns


class HotCall:
    """A call's values, its begin and its end, and what nearly every call is told."""

    __slots__ = (
        "_token",
        "anchor",
        "end_ns",
        "extra",
        "fields",
        "intake",
        "labels",
        "later",
        "name",
        "parent",
        "root",
        "sampled",
        "span",
        "start_ns",
        "units",
    )

    intake: Intake
    name: str | None
    #: Model, provider, operation and attributes, as given; never a mutable value of the caller's.
    fields: dict[str, Any]
    #: Attributes set while it ran.
    later: dict[str, Any] | None
    #: (input, output, other units or None), a map of units, or None: unknown.
    units: Any
    #: What is seldom given: inputs, outputs, tags, cost, estimate, error, first token, frame.
    extra: dict[str, Any] | None
    #: The call that began the trace, or a foreign trace; None for the root itself.
    root: Root | None
    span: int
    parent: int | str | None
    sampled: bool
    labels: Labels
    anchor: Anchor
    start_ns: int
    end_ns: int
    _token: Token[Frame] | None

    if TYPE_CHECKING:

        @property
        def trace_id(self) -> str: ...
        def error(self, exc: BaseException) -> None: ...
        def _not_open(self) -> None: ...

    def __enter__(self) -> Self:
        intake = self.intake
        frame = _frame() if self.extra is None else self.extra.get("frame") or _frame()
        draw, now = intake.bits, intake.mono
        self.span = draw(62)
        self.labels = frame.labels
        parent = self.parent = frame.span
        if parent is None:
            # A trace begins. Its root is None, not itself: a cycle would wait for the collector.
            self.root = None
            sampled = self.sampled = intake.keeps_all or intake.keeps()
        else:
            self.root = frame if frame.root is None else frame.root
            sampled = self.sampled = frame.sampled
        self._token = _enter(self)
        if sampled:
            intake.open[self] = None  # type: ignore[index]  # each one is a Call
        self.anchor = intake.anchor
        self.start_ns = now()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        intake = self.intake
        now = intake.mono
        self.end_ns = now()
        try:
            _leave(self._token)  # type: ignore[arg-type]  # None: there is nothing to put back
        except (AttributeError, TypeError, ValueError):
            # Begun by start(), or ended by another task or the garbage collector: there is nothing
            # to put back here.
            self._token = None
        else:
            self._token = None
        if exc is not None:
            self.error(exc)
        try:
            del intake.open[self]  # type: ignore[arg-type]
        except KeyError:
            self._not_open()
            return
        queue = intake.queue
        queue.append(
            Ended(
                self.name,
                self.fields,
                self.later,
                self.units,
                self.extra,
                self.root,
                self.span,
                self.parent,
                self.labels,
                self.anchor,
                self.start_ns,
                self.end_ns,
            )
        )
        if len(queue) >= intake.alarm:
            intake.ring()

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.__exit__(kind, exc, tb)

    def usage(self, input: int = 0, output: int = 0, **units: int) -> None:  # noqa: A002
        """What the call used: tokens in and out (all of them, cached ones included) and any other
        unit, for example ``cache_read=``, ``reasoning=``, ``image=``. A later call replaces it.
        """
        # A tuple that holds a dict, be it empty, is never out of the garbage collector's sight.
        self.units = (input, output, units or None)

    def set(self, /, **attributes: Any) -> None:
        """Add attributes. ``user``, ``session``, ``node``, ``finish_reason``, ``response_model``,
        ``service_tier``, ``http_status`` and ``attempts`` are fields of their own.
        """
        if _is_tracked(attributes):
            attributes = freeze_map(attributes)
        if self.later is None:
            self.later = attributes
        else:
            self.later.update(attributes)


class HotDefault:
    """The default instance, as far as every call looks at it."""

    __slots__ = ("intake",)

    intake: Intake | None


def generation_with(
    default: HotDefault,
    call_type: type[Call],
    absent: Callable[[], Call],
    long_way: Callable[..., Call],
) -> Callable[..., Call]:
    """The quick ``generation``: calls of ``call_type`` for the default's intake.

    CPython compares every keyword that falls into ** with every named parameter: with the eight of
    the declared function that is half a microsecond for six attributes. So the common case takes
    them all as one dict, and anything unusual, mistakes included, goes the long way.
    """

    def generation(name: str | None = None, /, **fields: Any) -> Call:
        intake = default.intake
        if intake is None:
            return absent()
        if (
            not _is_tracked(fields)
            and "model" in fields
            and "parent" not in fields
            and "inputs" not in fields
            and "estimate" not in fields
        ):
            call = call_type()  # new_call, without the call
            call.intake = intake
            call.name = name
            call.fields = fields
            call.extra = call.units = call.later = None
            return call
        return long_way(name, **fields)

    return generation
