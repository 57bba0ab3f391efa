"""The meter's side of budgets: definitions in force, where each began, and what they gain.

A definition's basis begins in a partition at the offset that is next when it is taken up: what lies
below was not counted, and is the opening balance's. That offset is a state row, so every record of
``events`` is either counted or below it, whatever restarts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import msgspec
from msgspec import UNSET, Struct

from callmeter.schema.budgets import Budget
from callmeter.schema.spend import SpendHeader
from callmeter_processors.limits import MeterLimits
from callmeter_processors.matching import Rule, Rules
from callmeter_processors.opencalls import OpenCall, OpenCalls, StuckLimit, net
from callmeter_processors.rowformat import readable
from callmeter_processors.spending import Spending
from callmeter_processors.step import Output

BUDGET_PREFIX = b"b:"
BEGUN_VERSION = 1


class BegunRow(Struct):
    """Where a partition of ``events`` began a basis of a budget: at offset ``next``."""

    v: int
    log: str
    basis: int
    next: int


_decoder = msgspec.json.Decoder(BegunRow)


class BudgetLedger:
    """What one partition's meter knows of budgets. ``spending`` is None until configured."""

    def __init__(self, log_id: str, partition: int, calls: OpenCalls, limits: MeterLimits) -> None:
        self._log_id = log_id
        self._partition = partition
        self._calls = calls
        self._limits = limits
        self._partitions = 0
        self._budgets: Sequence[Budget] | None = None
        self._wanted: tuple[Sequence[Budget], int] | None = None
        self._rules = Rules()
        self._stuck_rules: list[Rule] = []
        self._begun: dict[str, int] = {}
        self._rows: dict[bytes, bytes | None] = {}
        self._next = 0
        #: Budgets of which no checkpoint has told yet.
        self._new: set[str] = set()
        self.spending: Spending | None = None

    def restore(self, rows: Mapping[bytes, bytes]) -> None:
        """Take over where budgets began. ``NewerSchemaError`` for a row of a newer format."""
        for key, value in rows.items():
            if not key.startswith(BUDGET_PREFIX):
                continue
            if readable(key, value, self._log_id, BEGUN_VERSION):
                name = key[len(BUDGET_PREFIX) :].decode()
                self._begun[name] = _decoder.decode(value).basis

    @property
    def rows(self) -> int:
        """State rows: one for each budget."""
        return len(self._begun)

    def configure(self, budgets: Sequence[Budget], next_offset: int, partitions: int) -> None:
        """Take up definitions at the next ``begin``; what is read until then is not theirs."""
        self._partitions = partitions
        self._wanted = (budgets, next_offset)

    def begin(self) -> None:
        """A checkpoint begins: new definitions come into force here, never within one."""
        wanted, self._wanted = self._wanted, None
        if wanted is not None:
            self._next = max(self._next, wanted[1])
            if wanted[0] != self._budgets:
                self._take_up(wanted[0])
        if self._budgets is not None:
            self.spending = Spending(self._rules)

    def _take_up(self, budgets: Sequence[Budget]) -> None:
        self._budgets = budgets
        self._rules = Rules(budgets)
        self._stuck_rules = [
            rule
            for rule in self._rules.rules
            if rule.budget.slo is not UNSET
            and rule.budget.slo.measure == "open"
            and rule.budget.state == "active"
        ]
        for rule in self._rules.rules:
            name, basis = rule.budget.id, rule.budget.basis
            if self._begun.get(name) != basis:
                self._begun[name] = basis
                row = BegunRow(BEGUN_VERSION, self._log_id, basis, self._next)
                self._rows[BUDGET_PREFIX + name.encode()] = msgspec.json.encode(row)
                self._new.add(name)
        for name in self._begun.keys() - {rule.budget.id for rule in self._rules.rules}:
            del self._begun[name]
            self._rows[BUDGET_PREFIX + name.encode()] = None

    def stuck_limit(self, call: OpenCall) -> StuckLimit:
        """How long this call may be open: the shortest of its rules', or the default."""
        limit = StuckLimit(self._limits.stuck_us)
        if self._stuck_rules:
            wanted = frozenset(self._stuck_rules)
            limits = [
                StuckLimit(rule.budget.slo.max_us, rule.budget.id)
                for rule, _ in self._rules.entities(call.dims, call)
                if rule in wanted and rule.budget.slo is not UNSET
            ]
            limit = min(limits, default=limit)
        return limit

    def outputs(self, first: int | None, last: int, log_us: int) -> Iterator[Output]:
        """The checkpoint's ``spend`` records; ``first`` None if it read no record."""
        if first is None:
            first = last = self._next - 1
        else:
            self._next = last + 1
        changes, self._calls.changes = self._calls.changes, []
        if self.spending is None:
            return iter(())
        for call, sign in net(changes):
            known = [e for e in self._entities(call) if e[0].budget.id not in self._new]
            self.spending.open(call.dims, known, sign, int(call.estimate_pico))
        if self._new:
            # A basis that has just begun has not heard of the calls that are open already.
            for call in self._calls.calls():
                new = [e for e in self._entities(call) if e[0].budget.id in self._new]
                self.spending.expose(new, 1, int(call.estimate_pico))
            self._new.clear()
        header = SpendHeader(
            log=self._log_id, partition=self._partition, first=first, last=last, log_ts_us=log_us
        )
        return self.spending.outputs(header, self._partitions, self._limits.delta_part_bytes)

    def _entities(self, call: OpenCall) -> list[tuple[Rule, str]]:
        return self._rules.entities(call.dims, call)

    def drain(self) -> dict[bytes, bytes | None]:
        """The rows that changed since the last call."""
        rows, self._rows = self._rows, {}
        return rows
