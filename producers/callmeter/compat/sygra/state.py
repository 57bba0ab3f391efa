"""One run's data, and which run is meant where several go on."""

from __future__ import annotations

import threading
from collections import deque
from contextlib import suppress
from contextvars import ContextVar
from typing import Any, NamedTuple, Protocol

from callmeter.compat.sygra import costs
from callmeter.compat.sygra.document import document
from callmeter.compat.sygra.execution import Dataset, ExecutionContext, local_now
from callmeter.compat.sygra.totals import Totals
from callmeter.ids import uuid7

#: So many notes wait at most before they are folded, on a caller's thread.
MAX_NOTES = 1_000
#: So many requests wait for their price at most, before they are priced on a caller's thread.
MAX_UNPRICED = 10_000


class Model(NamedTuple):
    """A model as the meter knows it: seller and name, from the configuration where it says so."""

    provider: str | None
    name: str


class Note(Protocol):
    """Something that was recorded, and is folded into the totals by and by."""

    def fold(self, run: RunState) -> None:
        """Called once, under the run's lock."""
        ...


class RunState:
    """What one run has gathered. Every method is safe from any thread.

    Callers leave a note, which costs an append; folding many at once is cheaper for them than
    folding each while their own work has the processor's caches.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.clear()

    def clear(self) -> None:
        """From zero, as another run."""
        with self.lock:
            self.id = uuid7()
            self.execution = ExecutionContext()
            self.dataset = Dataset()
            self.totals = Totals()
            #: Models that had a request, as the meter knows them.
            self.models: dict[str, Model] = {}
            #: The last annotation that was sent, so that none is sent twice.
            self.told: dict[str, Any] | None = None
            self.ended = False
            self._notes: deque[Note] = deque()
            self._unpriced: list[costs.Unpriced] = []

    def note(self, note: Note) -> None:
        """Take something that was recorded."""
        notes = self._notes
        notes.append(note)
        if len(notes) >= MAX_NOTES:
            with self.lock:
                self._fold()

    def owe(self, request: costs.Unpriced) -> None:
        """A request is to be priced by the time somebody asks. The caller holds the lock."""
        self._unpriced.append(request)
        if len(self._unpriced) >= MAX_UNPRICED:
            self._price()

    def summary(self) -> dict[str, Any]:
        """The document of what is there so far."""
        with self.lock:
            self._fold()
            self._price()
            return document(
                self.execution.to_json(), self.dataset.to_json(), self.totals, local_now()
            )

    def facts(self) -> dict[str, Any]:
        """What no single event knows: execution, dataset, and the counts of records."""
        with self.lock:
            return {
                "run": self.id,
                "execution": self.execution.to_json(),
                "dataset": self.dataset.to_json(),
                "records": {"processed": self.totals.processed, "failed": self.totals.failed},
            }

    def _fold(self) -> None:
        notes = self._notes
        with suppress(IndexError):  # all are folded
            while True:
                notes.popleft().fold(self)

    def _price(self) -> None:
        unpriced, self._unpriced = self._unpriced, []
        for each in unpriced:
            pico = costs.price(each.provider, each.model, each.started_us, each.usage)
            if pico:
                self.totals.add_cost(each.label, pico, each.node)


class _Current:
    """The run that threads outside of any ``run()`` block write to: the newest that goes on."""

    __slots__ = ("lock", "runs")

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.runs: list[RunState] = [RunState()]


_current = _Current()
#: The run of the block this task or thread is in.
SCOPE: ContextVar[RunState | None] = ContextVar("callmeter_sygra_run", default=None)


def current() -> RunState:
    """The run around, else the newest one of the process."""
    state = SCOPE.get()
    if state is not None and state in _current.runs:
        return state
    return _current.runs[-1]


def begin(state: RunState) -> None:
    """A run begins; what came before it is not part of it."""
    with _current.lock:
        _current.runs.append(state)


def leave(state: RunState) -> None:
    """A run's block is over; its data stay readable until another begins, if it was the last."""
    with _current.lock:
        _current.runs = [each for each in _current.runs if each is not state]
        if len(_current.runs) == 1:
            _current.runs = [state]


def start_over() -> None:
    """In a forked child: what the parent has gathered, and the locks its threads held, are its."""
    _current.lock = threading.Lock()
    for each in _current.runs:
        each.lock = threading.RLock()
        each.clear()
