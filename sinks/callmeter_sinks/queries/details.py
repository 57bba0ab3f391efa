"""Small questions that the command line asks beside ``Queries``: all values are bound."""

# ruff: noqa: S608 - only text of this package is put together; every value is bound

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from callmeter_sinks.clickhouse.store import Store
from callmeter_sinks.queries.dimensions import Binding, Period


@dataclass(frozen=True, slots=True)
class ReasonRow:
    """Dead letters of one reason; ``envelopes`` of them are whole envelopes."""

    reason: str
    dead_letters: int
    envelopes: int
    last_at: datetime


@dataclass(frozen=True, slots=True)
class LastValue:
    """A series' newest point, by step and then by time, and how many points there are."""

    name: str
    labels: Mapping[str, str]
    points: int
    step: int | None
    value: float
    at: datetime


@dataclass(frozen=True, slots=True)
class Note:
    """Text written about an experiment."""

    at: datetime
    text: str


def dead_letter_reasons(
    store: Store, *, since: datetime | None, until: datetime | None, project: str | None
) -> list[ReasonRow]:
    """Dead letters by reason, most first; the period is log time."""
    binding = Binding()
    where = Period.of(since, until).sql("log_ts", binding)
    if project is not None:
        where.append(f"project = {binding.add(project, 'String')}")
    answer = store.query(
        "SELECT reason, count() AS n, countIf(whole_envelope), max(log_ts) FROM dead_letters "
        f"WHERE {' AND '.join(where) or '1'} GROUP BY reason ORDER BY n DESC, reason",
        binding.values,
    )
    return [ReasonRow(*row) for row in answer.rows]


def trace_of_call(store: Store, call_id: str, *, project: str | None) -> str | None:
    """The trace (32 hex digits) of a call (a UUID), begun or finished; None if it is unknown."""
    binding = Binding()
    where = f"call_id = toUUID({binding.add(call_id, 'String')})"
    if project is not None:
        where += f" AND project = {binding.add(project, 'String')}"
    answer = store.query(
        " UNION ALL ".join(
            f"SELECT replaceAll(toString(trace_id), '-', '') FROM {table} WHERE {where}"
            for table in ("calls", "calls_open")
        ),
        binding.values,
    )
    return answer.rows[0][0] if answer.rows else None


def corrections_of(store: Store, call_ids: Sequence[str]) -> dict[str, Decimal]:
    """Money that came apart from its call, by call: bills and corrections."""
    binding = Binding()
    answer = store.query(
        "SELECT toString(call_id) AS call, sum(cost) FROM costs "
        f"WHERE call_id IN {binding.add(list(call_ids), 'Array(UUID)')} GROUP BY call",
        binding.values,
    )
    return dict(answer.rows)


def last_values(store: Store, experiment: str, *, project: str) -> list[LastValue]:
    """Every series of an experiment, by name and labels."""
    binding = Binding()
    answer = store.query(
        "SELECT name, labels, count(), argMax(step, (ifNull(step, -1), ts)), "
        "argMax(value, (ifNull(step, -1), ts)), max(ts) FROM metrics "
        f"WHERE project = {binding.add(project, 'String')} "
        f"AND experiment = {binding.add(experiment, 'String')} "
        "GROUP BY name, labels ORDER BY name, toString(labels)",
        binding.values,
    )
    return [LastValue(*row) for row in answer.rows]


def notes(store: Store, experiment: str, *, project: str, limit: int) -> list[Note]:
    """The newest notes of an experiment, oldest of them first."""
    binding = Binding()
    answer = store.query(
        "SELECT ts, text FROM annotations "
        f"WHERE project = {binding.add(project, 'String')} "
        f"AND experiment = {binding.add(experiment, 'String')} "
        f"ORDER BY ts DESC, origin DESC, idx DESC LIMIT {binding.add(limit, 'UInt32')}",
        binding.values,
    )
    return [Note(*row) for row in answer.rows[::-1]]
