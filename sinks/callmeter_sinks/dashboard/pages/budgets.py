"""Budgets: where each stands, how fast it burns, when it will be used up, whether calls stop."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from functools import partial

from callmeter_sinks.dashboard.context import Asked, Page
from callmeter_sinks.dashboard.definitions import Definition, definitions
from callmeter_sinks.queries.budgets import BudgetRow

#: Entities that one budget shows, those that stand worst first.
MOST_ENTITIES = 50


@dataclass(frozen=True, slots=True)
class Standing:
    """One entity of a budget, as the page shows it; ``over`` says that its window has ended."""

    row: BudgetRow
    state: str
    over: bool
    circuit_open: bool
    used: float | None
    forecast_over: bool

    @classmethod
    def of(cls, row: BudgetRow, now: datetime) -> Standing:
        """A window that has ended stops nobody, and nothing is spent in the one that follows."""
        over = row.ended(now)
        state = "ok" if over and row.state != "disabled" else row.state
        forecast = row.forecast_usd
        return cls(
            row=row,
            state=state,
            over=over,
            circuit_open=row.stops and not over,
            used=None if over else _used(row),
            forecast_over=(
                not over
                and forecast is not None
                and row.limit_usd is not None
                and forecast - row.forgiven_usd > row.limit_usd
            ),
        )


@dataclass(frozen=True, slots=True)
class Shown:
    """One budget: its definition, if the store has it, and its entities."""

    name: str
    definition: Definition | None
    standings: Sequence[Standing]
    hidden: int


async def page(asked: Asked) -> Page:
    """All budgets that count calls of the view's project."""
    project = asked.view.project
    defined, rows = await asyncio.gather(
        asked.read("definitions", partial(definitions, project=project)),
        asked.query("budget_status", project=project),
    )
    shown = _shown(defined, [Standing.of(row, asked.now) for row in rows])
    every = [each for budget in shown for each in budget.standings]
    return Page(
        "budgets.html",
        {
            "title": "Budgets",
            "budgets": shown,
            "exceeded": sum(each.state == "exceeded" for each in every),
            "warned": sum(each.state == "warning" for each in every),
            "stopped": sum(each.circuit_open for each in every),
            "forecast": sum(each.forecast_over for each in every),
        },
    )


def _shown(defined: Sequence[Definition], standings: Sequence[Standing]) -> list[Shown]:
    by_name: dict[str, list[Standing]] = {each.id: [] for each in defined}
    known = {each.id: each for each in defined}
    for each in standings:
        # The status of a budget that was deleted may outlive its definition for a moment.
        if each.row.budget in by_name:
            by_name[each.row.budget].append(each)
    order = {"exceeded": 0, "warning": 1, "ok": 2}
    found = [
        Shown(name, known[name], held[:MOST_ENTITIES], max(len(held) - MOST_ENTITIES, 0))
        for name, held in by_name.items()
    ]
    return sorted(
        found, key=lambda b: (min((order.get(s.state, 3) for s in b.standings), default=4), b.name)
    )


def _used(row: BudgetRow) -> float | None:
    """Percent of the limit that is used: of money if it limits money, else of tokens."""
    if row.limit_usd:
        return float(100 * (row.spend_usd - row.forgiven_usd) / Decimal(row.limit_usd))
    if row.limit_tokens:
        return 100 * (row.tokens - row.forgiven_tokens) / row.limit_tokens
    return None
