"""In-process totals of a module, by phase: sums of exactly what its calls' events say.

Kept beside the modules, not on them, by identity: an engine may copy, compare or freeze its modules
as it likes. Integers throughout (nanoseconds, tokens, pico-USD), so no sum drifts.
"""

from __future__ import annotations

import threading
import weakref
from collections import Counter
from typing import Any

#: The phase under which everything is counted, whatever phase it was in.
ALL_TIME = None


class Totals:
    """Counters of one module by phase. What ran outside any phase is in the all-time ones alone."""

    __slots__ = ("_by_phase", "_lock", "in_flight")

    def __init__(self) -> None:
        #: Calls of this module that have begun and not ended.
        self.in_flight = 0
        self._lock = threading.Lock()
        self._by_phase: dict[str | None, Counter[str]] = {ALL_TIME: Counter()}

    def add(self, phase: str, amounts: dict[str, int]) -> None:
        """Add to the all-time counters and, if there is a phase, to its own."""
        with self._lock:
            self._by_phase[ALL_TIME].update(amounts)
            if phase:
                self._by_phase.setdefault(phase, Counter()).update(amounts)

    def begin(self) -> None:
        """A call has begun."""
        with self._lock:
            self.in_flight += 1

    def end(self) -> bool:
        """A call has ended; whether it was the last one under way."""
        with self._lock:
            self.in_flight -= 1
            return self.in_flight == 0

    def read(self, phase: str | None, name: str) -> int:
        """A counter; 0 if nothing was counted."""
        with self._lock:
            counter = self._by_phase.get(phase)
            return 0 if counter is None else counter[name]


class _Book:
    """Totals by the identity of modules that are alive."""

    def __init__(self) -> None:
        self.lock = threading.RLock()  # a module may be collected, and forgotten, inside the lock
        self.totals: dict[int, tuple[weakref.ref[Any], Totals]] = {}

    def of(self, module: Any) -> Totals:
        key = id(module)
        with self.lock:
            entry = self.totals.get(key)
            if entry is not None and entry[0]() is module:
                return entry[1]
            totals = Totals()
            self.totals[key] = (weakref.ref(module, lambda ref: self.forget(key, ref)), totals)
            return totals

    def forget(self, key: int, ref: weakref.ref[Any]) -> None:
        with self.lock:
            entry = self.totals.get(key)
            if entry is not None and entry[0] is ref:
                del self.totals[key]


_book = _Book()


def totals_of(module: Any) -> Totals:
    """The totals of a module, forgotten with it."""
    return _book.of(module)
