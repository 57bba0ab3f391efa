"""``synalinks.callbacks``: a training run that stops when its money or its tokens are spent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from callmeter.compat.synalinks.engine import ensure_metered
from callmeter.compat.synalinks.metrics.base import summed
from callmeter.compat.synalinks.modules import Role, reachable_models
from callmeter.compat.synalinks.reading import cost_of
from callmeter.money import from_pico


class BudgetStop:
    """Sets ``program.stop_training`` at the first batch boundary with a limit reached.

    ``max_cost`` is USD, ``max_tokens`` tokens in and out; both count every model that the program
    reaches, in all phases, from the beginning of the run. ``ValueError`` without any limit, or for
    one that is not above 0. For budgets over many processes see ``callmeter.BudgetGuard``.

    >>> program.fit(..., callbacks=[BudgetStop(max_cost=5.0)])  # doctest: +SKIP
    """

    def __init__(self, max_cost: Any = None, max_tokens: int | None = None) -> None:
        if max_cost is None and max_tokens is None:
            raise ValueError("a budget needs a limit: max_cost or max_tokens")
        pico = None if max_cost is None else cost_of(max_cost)
        if max_cost is not None and (pico is None or pico <= 0):
            raise ValueError("max_cost is an amount of USD above 0")
        if max_tokens is not None and max_tokens <= 0:
            raise ValueError("max_tokens is a number above 0")
        self.max_cost = max_cost
        self.max_tokens = max_tokens
        self.stopped = False
        self.params: Any = None
        self._max_pico = pico
        self._program: Any = None
        self._models: list[Any] = []
        self._before = (0, 0)

    @property
    def program(self) -> Any:
        """The program that is trained."""
        return self._program

    def set_params(self, params: Any) -> None:
        """What the trainer hands over."""
        self.params = params

    def set_program(self, program: Any) -> None:
        """The program that is trained."""
        ensure_metered(program)
        self._program = program

    @property
    def spent(self) -> float:
        """USD since the run began."""
        return float(from_pico(self._spent()[0]))

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """What was spent before does not count."""
        self._models = [
            *reachable_models(self._program, Role.LANGUAGE_MODEL),
            *reachable_models(self._program, Role.EMBEDDING_MODEL),
        ]
        self._before = self._now()
        self.stopped = False

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        """A batch boundary: stop if a limit is reached."""
        pico, tokens = self._spent()
        over_cost = self._max_pico is not None and pico >= self._max_pico
        if over_cost or (self.max_tokens is not None and tokens >= self.max_tokens):
            self.stopped = True
            self._program.stop_training = True

    def __getattr__(self, name: str) -> Any:
        """The other moments of a run (``on_epoch_end`` and so on) do not matter here."""
        if name.startswith("on_"):
            return _nothing
        raise AttributeError(f"{type(self).__name__!r} has no attribute {name!r}")

    def _now(self) -> tuple[int, int]:
        return summed(self._models, None, "cost_pico"), summed(self._models, None, "tokens")

    def _spent(self) -> tuple[int, int]:
        (pico, tokens), before = self._now(), self._before
        return pico - before[0], tokens - before[1]


def _nothing(*args: Any, **kwargs: Any) -> None:
    """A moment that does not matter."""


__all__ = ["BudgetStop"]
