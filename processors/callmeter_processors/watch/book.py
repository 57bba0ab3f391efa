"""The entities of one budget, under one basis, and the definition they are judged by."""

from __future__ import annotations

from collections.abc import Iterator

from callmeter.schema.alerts import Alert
from callmeter.schema.budgets import Budget
from callmeter.schema.spend import OpeningHeader, Spend
from callmeter.schema.windows import window_at
from callmeter_processors.watch.entity import Entity, WindowSum
from callmeter_processors.watch.rules import Moment, Terms


class BudgetBook:
    """One budget in one partition of ``spend``.

    Spend may come before the definition does (a meter has read it sooner): it is kept, and judged
    as soon as the definition is known. Spend of an older basis is of a sum that is no more.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.basis = 0
        self.definition: Budget | None = None
        self.terms: Terms | None = None
        self.entities: dict[str, Entity] = {}
        #: Opening balances taken: partition of ``events`` → (parts there are, parts taken).
        self.openings: dict[int, tuple[int, list[int]]] = {}

    def define(self, budget: Budget) -> list[Entity]:
        """Take up a definition; the entities that another basis leaves behind.

        A deleted one leaves all of them behind, and takes no spend of its former bases any more.
        """
        deleted = budget.state == "deleted"
        left = self._rebase(budget.version + 1 if deleted else budget.basis)
        self.recall(budget)
        return left

    def recall(self, budget: Budget) -> None:
        """Take up a definition that was taken up before."""
        self.definition = budget
        outdated = budget.state == "deleted" or budget.basis < self.basis
        self.terms = None if outdated else Terms(budget)

    def _rebase(self, basis: int) -> list[Entity]:
        if basis <= self.basis:
            return []
        left = list(self.entities.values())
        self.basis = basis
        self.entities = {}
        self.openings = {}
        # A newer basis than the definition's: the one that belongs to it will come.
        self.terms = None
        return left

    def judge_all(self, moment: Moment, now_us: int) -> Iterator[tuple[Entity, list[Alert]]]:
        """Judge every window that has not ended, after the definition changed.

        A manual reset is applied first: to the window that is current at ``now_us``.
        """
        terms = self.terms
        if terms is None:
            return
        for entity in self.entities.values():
            terms.outdate(entity)
            if entity.resets < terms.budget.resets:
                entity.resets = terms.budget.resets
                window = self.current(entity, now_us)
                if window is not None:
                    window.forgive()
            alerts: list[Alert] = []
            for start_us in sorted(entity.windows):
                alerts.extend(terms.judge(entity, start_us, moment))
            yield entity, alerts

    def take(self, line: Spend) -> tuple[Entity | None, list[Entity]]:
        """The entity a line belongs to, and the entities that its newer basis leaves behind.

        None if the line is of an older basis.
        """
        if line.basis < self.basis:
            return None, []
        left = self._rebase(line.basis)
        entity = self.entities.get(line.entity)
        if entity is None:
            entity = Entity(self.name, line.basis, line.entity, line.window)
            if self.terms is not None:
                entity.resets = self.terms.budget.resets
            self.entities[line.entity] = entity
        return entity, left

    def open(self, header: OpeningHeader) -> bool:
        """Whether an opening balance is to be taken: once for each of its parts."""
        if header.basis < self.basis:
            return False
        parts, taken = self.openings.get(header.partition, (header.parts, []))
        if header.part in taken:
            return False
        self.openings[header.partition] = (parts, [*taken, header.part])
        return True

    @property
    def opened(self) -> int:
        """Partitions of ``events`` whose opening balance is in, whole."""
        return sum(1 for parts, taken in self.openings.values() if len(taken) >= parts)

    @staticmethod
    def current(entity: Entity, now_us: int) -> WindowSum | None:
        """The window that ``now_us`` lies in, if anything happened in it."""
        return entity.windows.get(window_at(entity.window, now_us)[0])
