"""Where budgets stand, as the watch last said, and what they were told to be."""

# ruff: noqa: S608 - only text of this package is put together; every value is bound

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from callmeter.errors import UsageError
from callmeter_sinks.clickhouse.store import Store
from callmeter_sinks.queries.alerts import counts_project
from callmeter_sinks.queries.dimensions import Binding

MAX_STATUSES = 100_000
_PICO = Decimal("0.000000000001")
_HOUR_S = 3600


@dataclass(frozen=True, slots=True)
class BudgetRow:
    """One entity of a budget in its current window (``docs/reference/formats.md``, Budget status).

    ``entity`` is empty for the whole budget. ``limit_usd`` and ``limit_tokens`` are None without
    such a limit; what counts against them is ``spend_usd - forgiven_usd``. Rates are USD an hour.
    ``end_at`` None is a window without an end. ``value`` is an objective's measure (ppm or µs).
    ``scope``, ``per``, ``thresholds`` and ``note`` are of the newest definition, empty if it has
    not been stored.
    """

    budget: str
    entity: str
    at: datetime
    version: int
    window: str
    state: str
    action: str
    start_at: datetime
    end_at: datetime | None
    spend_usd: Decimal
    tokens: int
    calls: int
    failures: int
    unpriced: int
    usage_unknown: int
    limit_usd: Decimal | None
    limit_tokens: int | None
    forgiven_usd: Decimal
    forgiven_tokens: int
    resets: int
    open: int
    exposure_usd: Decimal
    burn_short_usd: Decimal
    burn_long_usd: Decimal
    exhausts_at: datetime | None
    value: int | None
    previous_start_at: datetime | None
    previous_spend_usd: Decimal | None
    late_usd: Decimal
    openings: int
    scope: Mapping[str, Sequence[str]]
    per: str
    thresholds: Sequence[str]
    note: str

    @property
    def stops(self) -> bool:
        """Whether calls are to be stopped: a limit is reached and the action says so."""
        return self.state == "exceeded" and self.action == "stop"

    @property
    def forecast_usd(self) -> Decimal | None:
        """What the window will have cost at its end if the last hour's rate holds; None without an
        end. Rounded half-even to the pico.
        """
        if self.end_at is None:
            return None
        left_us = max((self.end_at - self.at).total_seconds(), 0.0) * 1_000_000
        hours = Decimal(int(left_us)) / (_HOUR_S * 1_000_000)
        return self.spend_usd + (self.burn_long_usd * hours).quantize(_PICO)

    def ended(self, now: datetime) -> bool:
        """Whether the window is over at ``now``: nothing is spent in the one that follows it."""
        return self.end_at is not None and self.end_at <= now.astimezone(UTC)


_STATUS = (
    "budget", "entity", "at", "version", "window", "state", "action", "start_at", "end_at", "spend",
    "tokens", "calls", "failures", "unpriced", "usage_unknown", "limit_cost", "limit_tokens",
    "forgiven", "forgiven_tokens", "resets", "open", "exposure", "burn_short", "burn_long",
    "exhausts_at", "value", "previous_start_at", "previous_spend", "late", "openings",
)  # fmt: skip


def budget_status(
    store: Store, *, project: str | None, budget: str | None, limit: int
) -> list[BudgetRow]:
    """The newest status of every entity. See ``Queries.budget_status``."""
    if not 1 <= limit <= MAX_STATUSES:
        raise UsageError(f"the limit is 1 to {MAX_STATUSES}")
    binding = Binding()
    where = ["NOT forgotten"]
    if budget is not None:
        where.append(f"budget = {binding.add(budget, 'String')}")
    if project is not None:
        named = binding.add(project, "String")
        where.append(f"{counts_project(named)} AND (per != 'project' OR entity = {named})")
    # First the newest row of an entity in each log, then the newest log that speaks of it: a log
    # that was made anew begins its offsets at 0.
    newest = (
        "SELECT * FROM (SELECT * FROM budget_now ORDER BY topic_offset DESC "
        "LIMIT 1 BY log_id, budget, entity) ORDER BY log_ts DESC LIMIT 1 BY budget, entity"
    )
    definitions = (
        "SELECT id, scope, per, thresholds, note FROM budgets "
        "ORDER BY log_ts DESC, version DESC LIMIT 1 BY id"
    )
    answer = store.query(
        f"SELECT {', '.join(f's.{name}' for name in _STATUS)}, scope, per, thresholds, note "
        f"FROM ({newest}) AS s LEFT ANY JOIN ({definitions}) AS d ON d.id = s.budget "
        f"WHERE {' AND '.join(where)} ORDER BY "
        "indexOf(['exceeded', 'warning', 'ok'], s.state) = 0, "
        "indexOf(['exceeded', 'warning', 'ok'], s.state), s.spend DESC, s.budget, s.entity "
        f"LIMIT {binding.add(limit, 'UInt32')}",
        binding.values,
    )
    return [_row(row) for row in answer.rows]


def _row(row: Sequence[Any]) -> BudgetRow:
    return BudgetRow(*row)
