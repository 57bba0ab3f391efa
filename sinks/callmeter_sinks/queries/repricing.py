"""What repricing reads: stored calls as they were priced, what has corrected them, unpriced ones.

Only model operations with known usage and without a cost of their producer's are read: a reported
cost is kept as reported, and without usage there is nothing to price.
"""

# ruff: noqa: S608 - only text of this package is put together; every value is bound

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from callmeter_sinks.clickhouse.store import Store
from callmeter_sinks.queries.dimensions import MODEL_OPERATIONS_SQL, Binding, Period

#: The ``cost_source`` of corrections that repricing wrote.
REPRICING = "repricing"
#: Where a price book gave the price, which another book may give anew.
_BY_BOOK = "('own', 'genai-prices')"
_PRICEABLE = (
    f"operation IN {MODEL_OPERATIONS_SQL} AND NOT usage_unknown "
    f"AND (unpriced OR cost_source IN {_BY_BOOK})"
)
#: Calls read at a time; a single hour may hold more.
_AT_ONCE = 50_000


#: What a correction repeats of its call. The id alone would not do: a trace that is replayed for
#: another model has the same ids.
_SAME = (
    "toString(call_id) AS call, project, environment, service, operation, provider, model, phase, "
    "program, user, session, status, toUnixTimestamp64Micro(started_at) AS started_us"
)
_KEYS = 13


@dataclass(frozen=True, slots=True)
class PricedCall:
    """A stored call with what its price hangs on.

    ``cost_usd`` is what it costs now, corrections of earlier repricings included; None if unpriced.
    """

    call_id: str
    project: str
    environment: str
    service: str
    operation: str
    provider: str
    model: str
    phase: str
    program: str
    user: str
    session: str
    status: str
    started_us: int
    response_model: str
    service_tier: str
    usage: Mapping[str, int]
    tags: Mapping[str, str]
    cost_usd: Decimal | None


@dataclass(frozen=True, slots=True)
class UnpricedRow:
    """Calls of a provider and model without a known price; ``repriced`` of them were corrected."""

    provider: str
    model: str
    calls: int
    repriced: int
    input_tokens: int
    output_tokens: int
    first_at: datetime
    last_at: datetime


def projects(
    store: Store, *, since: datetime | None, until: datetime | None, project: str | None
) -> list[str]:
    """Projects with calls that a price book has priced or may price, by name."""
    binding = Binding()
    answer = store.query(
        f"SELECT DISTINCT toString(project) AS p FROM calls "
        f"WHERE {_where(since, until, project, binding)} ORDER BY p",
        binding.values,
    )
    return [name for (name,) in answer.rows]


def priced_calls(
    store: Store, *, since: datetime | None, until: datetime | None, project: str
) -> Iterator[PricedCall]:
    """Calls of a project in event time, in bounded portions, always in the same order."""
    for first, after in _portions(store, since, until, project):
        yield from _portion(store, first, after, project)


def _portions(
    store: Store, since: datetime | None, until: datetime | None, project: str
) -> Iterator[tuple[datetime, datetime]]:
    """Neighbouring hours joined up to ``_AT_ONCE`` calls, cut to the period."""
    binding = Binding()
    hours = store.query(
        "SELECT toStartOfHour(started_at) AS hour, count() FROM calls "
        f"WHERE {_where(since, until, project, binding)} GROUP BY hour ORDER BY hour",
        binding.values,
    ).rows
    begin: datetime | None = None
    number = 0
    end = since
    for hour, calls in hours:
        if begin is not None and end is not None and number + calls > _AT_ONCE:
            yield begin, end
            begin, number = None, 0
        if begin is None:
            begin = max(hour, since) if since is not None else hour
        end = hour + timedelta(hours=1)
        if until is not None:
            end = min(end, until)
        number += calls
    if begin is not None and end is not None:
        yield begin, end


def _portion(store: Store, since: datetime, until: datetime, project: str) -> Iterator[PricedCall]:
    binding = Binding()
    where = _where(since, until, project, binding)
    calls = store.query(
        f"SELECT {_SAME}, response_model, service_tier, usage, tags, cost "
        f"FROM calls WHERE {where} ORDER BY started_at, log_id, partition, origin, idx",
        binding.values,
    ).rows
    binding = Binding()
    within = Period.of(since, until).sql("started_at", binding)
    within.append(f"project = {binding.add(project, 'String')}")
    within.append(f"cost_source = {binding.add(REPRICING, 'String')}")
    answer = store.query(
        f"SELECT {_SAME}, sum(cost) FROM costs WHERE {' AND '.join(within)} GROUP BY ALL",
        binding.values,
    )
    corrections = {row[:_KEYS]: row[-1] for row in answer.rows}
    for row in calls:
        # Rows that are alike in everything take their corrections once, with the first.
        correction = corrections.pop(row[:_KEYS], None)
        now = row[-1] if correction is None else (row[-1] or Decimal(0)) + correction
        yield PricedCall(*(*row[:-1], now))


def unpriced(
    store: Store, *, since: datetime | None, until: datetime | None, project: str | None
) -> list[UnpricedRow]:
    """Provider and model of calls without a known price, most calls first."""
    binding = Binding()
    where = _where(since, until, project, binding)
    source = binding.add(REPRICING, "String")
    answer = store.query(
        "SELECT provider, model, count() AS n, "
        f"countIf((call_id, model) IN "
        f"(SELECT call_id, model FROM costs WHERE cost_source = {source})), "
        "sum(ifNull(input_tokens, 0)), sum(ifNull(output_tokens, 0)), "
        f"min(started_at), max(started_at) FROM calls WHERE unpriced AND {where} "
        "GROUP BY provider, model ORDER BY n DESC, provider, model",
        binding.values,
    )
    return [UnpricedRow(*row) for row in answer.rows]


def _where(
    since: datetime | None, until: datetime | None, project: str | None, binding: Binding
) -> str:
    where = [_PRICEABLE, *Period.of(since, until).sql("started_at", binding)]
    if project is not None:
        where.append(f"project = {binding.add(project, 'String')}")
    return " AND ".join(where)
