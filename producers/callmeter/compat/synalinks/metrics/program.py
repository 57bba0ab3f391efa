"""Program metrics: invocations of the bound program, and what its models cost.

Definitions are those of Synalinks' reference, "Program operational metrics": an invocation is a
call of the program as the outermost module, its time is wall-clock time summed per invocation, and
its cost is that of every model it reaches, fallbacks included, each model once.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from callmeter.compat.synalinks.metrics.base import OperationalMetric, ratio, summed
from callmeter.compat.synalinks.modules import Role, reachable_models
from callmeter.compat.synalinks.totals import totals_of
from callmeter.money import from_pico

INVOCATIONS = "invocations"
ELAPSED = "invocation_elapsed_ns"
COST = "cost_pico"


class ProgramOperationalMetric(OperationalMetric):
    """Base of the program's metrics. Unbound it reads 0."""

    direction: ClassVar[str] = "down"

    def __init__(self, name: str | None = None) -> None:
        super().__init__(name)
        self._program: Any = None
        self._language_models: list[Any] = []
        self._embedding_models: list[Any] = []

    @property
    def program(self) -> Any:
        """The bound program, or None."""
        return self._program

    @property
    def language_models(self) -> list[Any]:
        """Language models the program reaches, fallbacks included, each once."""
        return list(self._language_models)

    @property
    def embedding_models(self) -> list[Any]:
        """Embedding models the program reaches, fallbacks included, each once."""
        return list(self._embedding_models)

    def _bind(self, program: Any) -> None:
        self._program = program
        self._language_models = reachable_models(program, Role.LANGUAGE_MODEL)
        self._embedding_models = reachable_models(program, Role.EMBEDDING_MODEL)

    def _names(self) -> Iterable[str]:
        return INVOCATIONS, ELAPSED, COST

    def _read(self, name: str) -> int:
        if name == COST:
            models = (*self._language_models, *self._embedding_models)
            return summed(models, self._phase, COST)
        return 0 if self._program is None else totals_of(self._program).read(self._phase, name)

    def _elapsed_s(self) -> float:
        return self._delta(ELAPSED) / 1e9

    def _cost_usd(self) -> float:
        return float(from_pico(self._delta(COST)))


class ProgramCalls(ProgramOperationalMetric):
    """Invocations of the program, whatever its modules do inside: an integer."""

    def __init__(self, name: str = "program_calls") -> None:
        super().__init__(name)

    def result(self) -> int:
        """Invocations."""
        return self._delta(INVOCATIONS)


class ProgramElapsedTime(ProgramOperationalMetric):
    """Seconds inside the program, summed over invocations; nested calls are not added."""

    def __init__(self, name: str = "program_elapsed_time") -> None:
        super().__init__(name)

    def result(self) -> float:
        """Seconds."""
        return self._elapsed_s()


class ProgramCallsPerSecond(ProgramOperationalMetric):
    """Invocations by summed seconds; 0.0 where no time has passed."""

    def __init__(self, name: str = "program_calls_per_second") -> None:
        super().__init__(name)

    def result(self) -> float:
        """Invocations per second."""
        return ratio(self._delta(INVOCATIONS), self._elapsed_s())


class ProgramCost(ProgramOperationalMetric):
    """USD as the providers reported it; a call without a reported cost adds nothing here, and its
    record in callmeter is priced by the meter or says ``unpriced``.
    """

    def __init__(self, name: str = "program_cost") -> None:
        super().__init__(name)

    def result(self) -> float:
        """USD."""
        return self._cost_usd()


class ProgramAvgCostPerInvocation(ProgramOperationalMetric):
    """USD for each invocation; 0.0 without one."""

    def __init__(self, name: str = "program_avg_cost_per_invocation") -> None:
        super().__init__(name)

    def result(self) -> float:
        """USD."""
        return ratio(self._cost_usd(), self._delta(INVOCATIONS))
