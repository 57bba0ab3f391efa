"""What surrounds a call: its parent, trace, phase, program and tags. Never mixed between tasks.

One immutable object in one ``ContextVar``. Inside a call that object is the call itself, so
entering one costs a single ``ContextVar.set``.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar, Token
from types import TracebackType
from typing import Protocol


class Labels:
    """Phase, program and tags in force; shared by all calls of a block and never changed."""

    __slots__ = ("phase", "program", "tags")

    def __init__(self, phase: str, program: str, tags: Mapping[str, str]) -> None:
        self.phase = phase
        self.program = program
        self.tags = tags


class Root(Protocol):
    """The beginning of a trace: a call, or what a caller elsewhere sent."""

    @property
    def trace_id(self) -> str: ...


class Frame(Protocol):
    """What a new call sees around it. ``span`` is the low 62 bits of the parent's id, a foreign
    parent's id as text, or None outside of any trace; ``root`` is None if the parent, a call, is
    the root itself.
    """

    @property
    def root(self) -> Root | None: ...

    @property
    def span(self) -> int | str | None: ...

    @property
    def sampled(self) -> bool: ...

    @property
    def labels(self) -> Labels: ...

    @property
    def trace_id(self) -> str: ...


class Surroundings:
    """A frame that is not a call."""

    __slots__ = ("labels", "root", "sampled", "span")

    def __init__(
        self, root: Root | None, span: int | str | None, sampled: bool, labels: Labels
    ) -> None:
        self.root: Root | None = root
        self.span: int | str | None = span
        self.sampled = sampled
        self.labels = labels

    @property
    def trace_id(self) -> str:
        """The trace around; empty outside of any."""
        return "" if self.root is None else self.root.trace_id


class ForeignTrace:
    """A trace that began in another process."""

    __slots__ = ("trace_id",)

    def __init__(self, trace_id: str) -> None:
        self.trace_id = trace_id


NO_LABELS = Labels("", "", {})
NOWHERE = Surroundings(None, None, True, NO_LABELS)

#: The frame in force. ``Call.__enter__`` sets it, ``Call.__exit__`` puts back what was there.
FRAME: ContextVar[Frame] = ContextVar("callmeter_frame", default=NOWHERE)


class LabelBlock:
    """A with-block that lays labels over those around it; the inner one wins. Reusable, not shared
    between tasks: each ``with`` needs its own, as ``callmeter.tags(...)`` makes.
    """

    __slots__ = ("_phase", "_program", "_tags", "_tokens")

    def __init__(
        self,
        *,
        phase: str | None = None,
        program: str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        self._phase = phase
        self._program = program
        self._tags = tags
        self._tokens: list[Token[Frame]] = []

    def __enter__(self) -> None:
        around = FRAME.get()
        old = around.labels
        labels = Labels(
            old.phase if self._phase is None else self._phase,
            old.program if self._program is None else self._program,
            {**old.tags, **self._tags} if self._tags else old.tags,
        )
        root = around if around.root is None and around.span is not None else around.root
        inside = Surroundings(root, around.span, around.sampled, labels)
        self._tokens.append(FRAME.set(inside))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        restore(self._tokens.pop())


def restore(token: Token[Frame]) -> None:
    """Put back the frame from before ``token``.

    A generator that is closed by the garbage collector or by another task leaves its block in a
    foreign context, where its token means nothing and where there is nothing to put back.
    """
    try:
        FRAME.reset(token)
    except ValueError:
        return
