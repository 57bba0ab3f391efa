"""The base of operational metrics: counters of one phase since a baseline."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from callmeter.compat.synalinks.engine import ensure_metered
from callmeter.compat.synalinks.totals import totals_of


class OperationalMetric:
    """Reads the totals of bound modules; what was there when it was bound does not count.

    ``_phase`` is ``inference``, ``reward`` or ``optimizer``; a subclass sets another, and None
    reads all time. Predictions and labels change nothing.
    """

    _phase: ClassVar[str | None] = "inference"

    def __init__(self, name: str | None = None) -> None:
        self.name = name or type(self).__name__
        self._baselines: dict[str, int] = {}

    def bind_program(self, program: Any) -> None:
        """Count this program's calls from now on."""
        ensure_metered(program)
        self._bind(program)
        self._snapshot()

    def reset_state(self) -> None:
        """Start again from 0; all-time totals stay."""
        self._snapshot()

    async def update_state(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: what is counted are calls, not predictions."""

    def result(self) -> int | float:
        """The metric's value since the baseline."""
        raise TypeError(f"{type(self).__name__} is a base: its subclasses have results")

    async def __call__(self, *args: Any, **kwargs: Any) -> int | float:
        """Update and read, as trainers do."""
        await self.update_state(*args, **kwargs)
        return self.result()

    def get_config(self) -> dict[str, Any]:
        """What makes the same metric again."""
        return {"name": self.name}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        """The metric that ``get_config`` describes."""
        return cls(**config)

    def _bind(self, program: Any) -> None:
        """Remember what to read."""

    def _read(self, name: str) -> int:
        """The all-time value of a counter, baselines aside."""
        return 0

    def _names(self) -> Iterable[str]:
        """The counters it reads."""
        return ()

    def _snapshot(self) -> None:
        self._baselines = {name: self._read(name) for name in self._names()}

    def _delta(self, name: str) -> int:
        return self._read(name) - self._baselines.get(name, 0)


def summed(modules: Iterable[Any], phase: str | None, name: str) -> int:
    """A counter over several modules."""
    return sum(totals_of(module).read(phase, name) for module in modules)


def ratio(part: float, whole: float) -> float:
    """``part / whole``; 0.0 where there is nothing to divide by."""
    return part / whole if whole > 0 else 0.0
