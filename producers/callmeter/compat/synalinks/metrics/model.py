"""The base of metrics over models, and the one shape most of them have: a counter, or a ratio."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from callmeter.compat.synalinks.metrics.base import OperationalMetric, ratio, summed
from callmeter.compat.synalinks.modules import Role, reachable_models
from callmeter.compat.synalinks.scope import phase_wall_ns

#: A phase's wall-clock time, where a ratio is over time and not over calls.
WALL = "wall_ns"
#: Calls that got an answer and calls that did not.
ATTEMPTED = "attempted"
#: How many of a counter's units make one of the result's.
_SCALES = {"_ns": 1_000_000_000, "_pico": 1_000_000_000_000}


class ModelOperationalMetric(OperationalMetric):
    """Counters summed over the models of one role that the program reaches.

    A subclass names its counter (``_part``) and, for an average or a rate, what it is divided by
    (``_whole``); a rate over nothing is 0.0. Counts are integers, all else floats.
    """

    _role: ClassVar[Role]
    _default_name: ClassVar[str] = ""
    _part: ClassVar[str] = ""
    _whole: ClassVar[str] = ""

    def __init__(self, name: str | None = None) -> None:
        super().__init__(name or self._default_name or None)
        self._models: list[Any] = []

    def result(self) -> int | float:
        """The metric's value since the baseline."""
        if not self._part:
            return super().result()
        part = self._in_units(self._part)
        if not self._whole:
            return part
        return ratio(part, self._in_units(self._whole))

    def _in_units(self, name: str) -> int | float:
        amount = self._delta(name)
        scale = next((scale for end, scale in _SCALES.items() if name.endswith(end)), None)
        return amount if scale is None else amount / scale

    def _bind(self, program: Any) -> None:
        self._models = reachable_models(program, self._role)

    def _names(self) -> Iterable[str]:
        return [name for name in (self._part, self._whole) if name]

    def _read(self, name: str) -> int:
        if name == WALL:
            return phase_wall_ns(self._phase) if self._phase else 0
        if name == ATTEMPTED:
            return self._read("calls") + self._read("failed_calls")
        return summed(self._models, self._phase, name)
