"""Writes the status of an entity (docs/reference/formats.md, "Budget status")."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import msgspec
from msgspec import UNSET

from callmeter.schema.status import STATUS_VERSION, BudgetState, BudgetStatus, Previous
from callmeter.schema.windows import HOUR_US, window_at
from callmeter_processors.watch.book import BudgetBook
from callmeter_processors.watch.entity import Entity, WindowSum
from callmeter_processors.watch.rules import Terms, slo_value

_NOTHING = WindowSum()


class Standing(NamedTuple):
    """What every status of a checkpoint has in common."""

    log: str
    now_us: int
    included: Mapping[int, int]


def entity_status(book: BudgetBook, terms: Terms, entity: Entity, at: Standing) -> BudgetStatus:
    """The entity's current window as it stands now."""
    budget = terms.budget
    start_us, end_us = window_at(entity.window, at.now_us)
    window = entity.windows.get(start_us, _NOTHING)
    short, long = entity.rates(at.now_us)
    status = BudgetStatus(
        v=STATUS_VERSION,
        log=at.log,
        budget=budget.id,
        version=budget.version,
        basis=budget.basis,
        entity=entity.name,
        window=budget.window,
        state=terms.state(window),
        action=budget.action,
        start_us=start_us,
        end_us=end_us,
        spend_pico=str(window.cost),
        tokens=window.tokens,
        calls=window.calls,
        at_us=at.now_us,
        included=dict(at.included),
        failures=window.failures,
        unpriced=window.unpriced,
        usage_unknown=window.usage_unknown,
        limit_pico=budget.limit_pico,
        limit_tokens=budget.limit_tokens,
        forgiven_pico=str(window.forgiven_cost),
        forgiven_tokens=window.forgiven_tokens,
        resets=entity.resets,
        open=entity.open,
        exposure_pico=str(entity.exposure),
        burn_short_pico=str(short),
        burn_long_pico=str(long),
        late_pico=str(entity.late_cost),
        openings=book.opened,
    )
    _forecast(status, window, max(short, long))
    if budget.slo is not UNSET:
        value = slo_value(budget.slo, window)
        status.value = UNSET if value is None else value
    if end_us:
        before = window_at(entity.window, start_us - HOUR_US)[0]
        previous = entity.windows.get(before)
        if previous is not None:
            status.previous = Previous(
                start_us=before, spend_pico=str(previous.cost), tokens=previous.tokens
            )
    return status


def _forecast(status: BudgetStatus, window: WindowSum, rate_pico: int) -> None:
    """When the limit will be reached at this rate: left out if not before the window ends."""
    if status.limit_pico is UNSET or rate_pico <= 0:
        return
    left = int(status.limit_pico) - (window.cost - window.forgiven_cost)
    at_us = status.at_us + max(0, left) * HOUR_US // rate_pico
    if not status.end_us or at_us < status.end_us:
        status.exhausts_us = at_us


def state_of(terms: Terms, entity: Entity, now_us: int) -> BudgetState:
    """The entity's state at ``now_us``."""
    return terms.state(entity.windows.get(window_at(entity.window, now_us)[0]))


def encode_status(status: BudgetStatus) -> bytes:
    """The status as it stands in the topic."""
    return msgspec.json.encode(status)
