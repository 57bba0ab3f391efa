"""Phases of a run (``inference``, ``reward``, ``optimizer``) and what surrounds its traces.

``op_scope`` is ``callmeter.phase`` with a clock: time counts for the innermost scope alone, and
scopes of one phase that overlap count their time once, so it is wall-clock time. Each stretch
travels as a metric, and the in-process totals are the sums of those.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import callmeter
from callmeter.sdk import api
from callmeter.sdk.context import FRAME, LabelBlock

PHASES = ("inference", "reward", "optimizer")
#: The metric that carries a phase's wall-clock seconds, with the label ``phase``.
PHASE_SECONDS = "synalinks.phase_seconds"
#: What a trace's root shows where no phase is set; totals by phase do not follow it.
DEFAULT_LABEL = "inference"


def now_ns() -> int:
    """Monotonic nanoseconds of the clock that the default client's calls are timed with."""
    client = api.default_client()
    intake = None if client is None else client.intake
    return time.perf_counter_ns() if intake is None else intake.mono()


@dataclass
class _Running:
    """One phase: how many scopes are on top, since when, and the time that is over."""

    scopes: int = 0
    since_ns: int = 0
    total_ns: int = 0


class _Walls:
    """Wall-clock time by phase."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.phases: dict[str, _Running] = {}

    def start(self, phase: str, at_ns: int) -> None:
        running = self.phases.setdefault(phase, _Running())
        if running.scopes == 0:
            running.since_ns = at_ns
        running.scopes += 1

    def stop(self, phase: str, at_ns: int) -> tuple[str, int] | None:
        """The stretch that has ended, if this was the last scope on top."""
        running = self.phases[phase]
        running.scopes -= 1
        if running.scopes:
            return None
        stretch_ns = max(0, at_ns - running.since_ns)
        running.total_ns += stretch_ns
        return phase, stretch_ns


_walls = _Walls()
_scope: ContextVar[op_scope | None] = ContextVar("callmeter_op_scope", default=None)


def phase_wall_ns(phase: str) -> int:
    """Wall-clock nanoseconds that scopes of this phase were innermost, scopes that still run
    included.
    """
    with _walls.lock:
        running = _walls.phases.get(phase)
        if running is None:
            return 0
        open_ns = max(0, now_ns() - running.since_ns) if running.scopes else 0
        return running.total_ns + open_ns


class op_scope:  # noqa: N801  # the name Synalinks gives it
    """A with-block whose calls belong to ``phase`` and whose time counts for it.

    >>> with op_scope("reward"):
    ...     score = judge(answer)
    """

    def __init__(self, phase: str) -> None:
        self.phase = phase
        self._labels = LabelBlock(phase=phase)
        self._around: op_scope | None = None
        self._inside = 0

    def __enter__(self) -> Self:
        self._around = _scope.get()
        at_ns = now_ns()
        with _walls.lock:
            ended = self._around._pause(at_ns) if self._around is not None else None
            _walls.start(self.phase, at_ns)
        _tell(ended)
        self._token = _scope.set(self)
        self._labels.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._labels.__exit__(kind, exc, tb)
        _scope.reset(self._token)
        at_ns = now_ns()
        with _walls.lock:
            ended = _walls.stop(self.phase, at_ns)
            if self._around is not None:
                self._around._resume(at_ns)
        _tell(ended)

    def _pause(self, at_ns: int) -> tuple[str, int] | None:
        """A scope begins inside this one: its time is not this one's."""
        self._inside += 1
        return _walls.stop(self.phase, at_ns) if self._inside == 1 else None

    def _resume(self, at_ns: int) -> None:
        self._inside -= 1
        if self._inside == 0:
            _walls.start(self.phase, at_ns)


def _tell(stretch: tuple[str, int] | None) -> None:
    if stretch is not None and api.default_client() is not None:
        phase, ns = stretch
        callmeter.metric(PHASE_SECONDS, ns / 1e9, labels={"phase": phase})


def current_phase() -> str:
    """The phase in force, by ``op_scope`` or ``callmeter.phase``; empty outside any."""
    return FRAME.get().labels.phase


@dataclass(frozen=True, slots=True)
class Surrounding:
    """User and session of the traces that begin here."""

    user: str | None = None
    session: str | None = None


_NOTHING = Surrounding()
SURROUNDING: ContextVar[Surrounding] = ContextVar("callmeter_surrounding", default=_NOTHING)


@contextmanager
def trace_context(
    *,
    user: str | None = None,
    session: str | None = None,
    tags: Mapping[str, Any] | Iterable[str] = (),
) -> Iterator[None]:
    """A with-block whose traces carry user, session and tags; an inner block wins.

    ``tags`` are names with values, or names alone (their value is then ``true``). Tasks and threads
    that run at the same time never see each other's.
    """
    around = SURROUNDING.get()
    named = tags if isinstance(tags, Mapping) else dict.fromkeys(tags, "true")
    token = SURROUNDING.set(
        Surrounding(
            around.user if user is None else str(user),
            around.session if session is None else str(session),
        )
    )
    try:
        with callmeter.tags(**{str(name): value for name, value in named.items()}):
            yield
    finally:
        SURROUNDING.reset(token)
