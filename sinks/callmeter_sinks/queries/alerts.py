"""Alerts as they were raised, and the calls that one has told of and that have not ended since."""

# ruff: noqa: S608 - only text of this package is put together; every value is bound

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from callmeter.errors import UsageError
from callmeter.schema.alerts import AlertKind
from callmeter_sinks.clickhouse.store import Store
from callmeter_sinks.queries.dimensions import Binding, Period

MAX_ALERTS = 10_000
_KINDS = tuple(kind.value for kind in AlertKind)


@dataclass(frozen=True, slots=True)
class AlertRow:
    """One alert. ``value`` and ``limit`` are integers in the measure's unit: pico-USD, tokens,
    parts per million, microseconds, envelopes. Texts are empty where the alert names nothing.

    ``corrects`` is the id of the alert that this one withdraws or closes; ``corrected_at`` is when
    another did that to this one, None while it stands.
    """

    at: datetime
    id: str
    kind: str
    rule: str
    severity: str
    message: str
    project: str
    entity: str
    window: str
    start_at: datetime | None
    end_at: datetime | None
    measure: str
    threshold: str
    value: int | None
    limit: int | None
    late: bool
    corrects: str
    corrected_at: datetime | None
    source: str
    call_id: str
    trace_id: str
    provider: str
    model: str
    program: str
    user: str
    session: str
    started_at: datetime | None
    first_seq: int | None
    last_seq: int | None


_NIL = "00000000-0000-0000-0000-000000000000"
# Read through ``a``: in WHERE a bare ``source`` would mean the text of that name.
_COLUMNS = (
    "a.at, a.id, kind, rule, severity, message, a.project, entity, window, start_at, end_at, "
    "measure, threshold, value, limit_value, late, corrects, "
    "if(c.at = toDateTime64(0, 6, 'UTC'), NULL, c.at) AS corrected_at, "
    f"if(a.source = toUUID('{_NIL}'), '', toString(a.source)), "
    f"if(a.call_id = toUUID('{_NIL}'), '', toString(a.call_id)), "
    f"if(a.trace_id = toUUID('{_NIL}'), '', replaceAll(toString(a.trace_id), '-', '')), "
    "provider, model, program, user, session, started_at, first_seq, last_seq"
)
_FROM = (
    "alerts AS a LEFT ANY JOIN (SELECT corrects AS id, max(at) AS at FROM alerts "
    "WHERE corrects != '' AND kind != 'moved' GROUP BY corrects) AS c ON c.id = a.id"
)


def counts_project(placeholder: str) -> str:
    """Condition on a row of ``budgets``: it counts calls of the project.

    Its scope names the project, by a prefix that ends in ``*`` too, or no project at all.
    """
    named = (
        f"arrayExists(v -> v = {placeholder} OR (endsWith(v, '*') "
        f"AND startsWith({placeholder}, substring(v, 1, length(v) - 1))), scope['project'])"
    )
    return f"(NOT mapContains(scope, 'project') OR {named})"


def alerts(
    store: Store,
    *,
    since: datetime | None,
    until: datetime | None,
    project: str | None,
    kind: str | None,
    rule: str | None,
    limit: int,
) -> list[AlertRow]:
    """Alerts, newest first. See ``Queries.alerts``."""
    if not 1 <= limit <= MAX_ALERTS:
        raise UsageError(f"the limit is 1 to {MAX_ALERTS}")
    if kind is not None and kind not in _KINDS:
        raise UsageError(f"no alerts are {kind[:60]!r}: there are {', '.join(_KINDS)}")
    binding = Binding()
    where = Period.of(since, until).sql("a.at", binding)
    for column, wanted in (("kind", kind), ("rule", rule)):
        if wanted is not None:
            where.append(f"{column} = {binding.add(wanted, 'String')}")
    if project is not None:
        where.append(of_project(binding.add(project, "String")))
    answer = store.query(
        f"SELECT {_COLUMNS} FROM {_FROM} WHERE {' AND '.join(where) or '1'} "
        f"ORDER BY a.at DESC, a.id LIMIT {binding.add(limit, 'UInt32')}",
        binding.values,
    )
    return [AlertRow(*row) for row in answer.rows]


def stuck(
    store: Store, *, project: str | None, since: datetime | None, limit: int
) -> list[AlertRow]:
    """Calls that hang. See ``Queries.stuck``."""
    if not 1 <= limit <= MAX_ALERTS:
        raise UsageError(f"the limit is 1 to {MAX_ALERTS}")
    binding = Binding()
    where = ["kind IN ('stuck', 'orphaned')", "corrected_at IS NULL"]
    where += Period.of(since, None).sql("a.at", binding)
    if project is not None:
        where.append(f"a.project = {binding.add(project, 'String')}")
    # A call may be told of twice, as stuck and as orphaned: the last word counts, and if either
    # was followed by its end, the call has ended.
    where.append(
        "a.call_id NOT IN (SELECT call_id FROM alerts WHERE kind = 'ended' "
        f"AND call_id != toUUID('{_NIL}'))"
    )
    answer = store.query(
        f"SELECT {_COLUMNS} FROM {_FROM} WHERE {' AND '.join(where)} "
        "ORDER BY a.at DESC, a.id LIMIT 1 BY a.call_id "
        f"LIMIT {binding.add(limit, 'UInt32')}",
        binding.values,
    )
    return [AlertRow(*row) for row in answer.rows]


def of_project(placeholder: str) -> str:
    """Condition on ``alerts AS a``: it concerns the project.

    The alert names it, or speaks of one of its sources, or of a budget that counts its calls.
    """
    sources = f"SELECT source FROM envelopes WHERE project = {placeholder}"
    budgets = (
        f"SELECT id FROM (SELECT * FROM budgets ORDER BY log_ts DESC, version DESC LIMIT 1 BY id) "
        f"WHERE {counts_project(placeholder)}"
    )
    return (
        f"(a.project = {placeholder} OR (a.project = '' AND "
        f"((kind IN ('gap', 'gap_closed') AND a.source IN ({sources})) OR "
        f"(kind NOT IN ('gap', 'gap_closed') AND rule IN ({budgets})))))"
    )
