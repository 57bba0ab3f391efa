"""Budgets as they were defined, also those in which nothing was spent yet."""

# ruff: noqa: S608 - only text of this package is put together; every value is bound

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

import orjson

from callmeter_sinks.clickhouse.store import Store
from callmeter_sinks.dashboard import figures
from callmeter_sinks.queries.alerts import counts_project
from callmeter_sinks.queries.dimensions import Binding


@dataclass(frozen=True, slots=True)
class Definition:
    """The newest version of one budget."""

    id: str
    window: str
    scope: Mapping[str, Sequence[str]]
    per: str
    limit_usd: Decimal | None
    limit_tokens: int | None
    thresholds: Sequence[str]
    action: str
    state: str
    slo: str
    note: str

    @property
    def limit(self) -> str:
        """The limit in words."""
        if self.slo:
            return _objective(self.slo)
        parts = []
        if self.limit_usd is not None:
            parts.append(f"{figures.exact_usd(self.limit_usd)} USD")
        if self.limit_tokens is not None:
            parts.append(f"{self.limit_tokens:,} tokens")
        return " and ".join(parts)

    @property
    def counts(self) -> str:
        """What it counts, in words."""
        said = [f"{name} {' or '.join(values)}" for name, values in sorted(self.scope.items())]
        return ", ".join(said) or "everything"


def definitions(store: Store, project: str | None) -> list[Definition]:
    """Every budget that was not deleted, by name; with ``project`` those that count its calls."""
    binding = Binding()
    where = "state != 'deleted'"
    if project is not None:
        where += f" AND {counts_project(binding.add(project, 'String'))}"
    answer = store.query(
        "SELECT id, window, scope, per, limit_cost, limit_tokens, thresholds, action, state, slo, "
        "note FROM (SELECT * FROM budgets ORDER BY log_ts DESC, version DESC LIMIT 1 BY id) "
        f"WHERE {where} ORDER BY id LIMIT 1000",
        binding.values,
    )
    return [Definition(*row) for row in answer.rows]


def _objective(slo: str) -> str:
    said = orjson.loads(slo)
    if said.get("measure") == "error_rate":
        return f"at most {said.get('max_ppm', 0) / 10_000:g} % of calls fail"
    limit = figures.us(said.get("max_us", 0))
    if said.get("measure") == "open":
        return f"no call is open for longer than {limit}"
    return f"p{said.get('quantile_ppm', 0) / 10_000:g} latency of at most {limit}"
