"""A provider's bill against metered cost, by day (UTC), provider, project and model.

Names of models are compared in one form (``bill_forms.canonical``), the model that answered before
the one that was asked for. Where a bill names no model on some line, whole days are compared.
"""

# ruff: noqa: S608 - only text of this package is put together; every value is bound

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from callmeter.money import to_pico
from callmeter_sinks.bill_forms import Bill, canonical
from callmeter_sinks.clickhouse.store import Store
from callmeter_sinks.queries.dimensions import MODEL_OPERATIONS_SQL, Binding, Period

#: The ``source`` of costs that bring metered cost to a bill.
BILL = "bill"


@dataclass(slots=True)
class BillRow:
    """One comparison, in pico-USD. ``model`` is as it was metered, else as the bill names it.

    ``unknown`` are calls whose cost is not known, ``booked_pico`` is what of the metered cost bills
    have added before.
    """

    day: date
    provider: str
    project: str
    model: str
    billed_pico: int = 0
    metered_pico: int = 0
    booked_pico: int = 0
    calls: int = 0
    unknown: int = 0

    @property
    def difference_pico(self) -> int:
        """What the bill has more than was metered; negative if it has less."""
        return self.billed_pico - self.metered_pico


def reconcile(store: Store, bill: Bill) -> list[BillRow]:
    """Every key that the bill or the meter has, in the bill's days and of its providers, in order.

    Lines without a project are compared with all projects together.
    """
    whole_days = any(not key.model for key in bill.amounts)
    by_project = any(key.project for key in bill.amounts)
    rows: dict[tuple[date, str, str, str], BillRow] = {}

    def row(day: date, provider: str, project: str, model: str) -> BillRow:
        name = "" if whole_days else model
        key = (day, provider, project if by_project else "", canonical(name))
        return rows.setdefault(key, BillRow(day, key[1], key[2], name))

    # The largest metered name of a model first, so that it names the row.
    for found in _metered(store, bill, by_project):
        day, provider, project, model, pico, booked, calls, unknown = found
        each = row(day, provider, project, model)
        each.metered_pico += pico
        each.booked_pico += booked
        each.calls += calls
        each.unknown += unknown
    for billed, pico in bill.amounts.items():
        row(billed.day, billed.provider, billed.project, billed.model).billed_pico += pico
    return [rows[key] for key in sorted(rows)]


def _metered(
    store: Store, bill: Bill, by_project: bool
) -> Sequence[tuple[date, str, str, str, int, int, int, int]]:
    first, last = bill.days
    since = datetime(first.year, first.month, first.day, tzinfo=UTC)
    until = datetime(last.year, last.month, last.day, tzinfo=UTC) + timedelta(days=1)
    binding = Binding()
    where = Period(since, until).sql("started_at", binding)
    providers = sorted({key.provider for key in bill.amounts})
    where.append(f"has({binding.add(providers, 'Array(String)')}, provider)")
    if by_project:
        projects = sorted({key.project for key in bill.amounts})
        where.append(f"has({binding.add(projects, 'Array(String)')}, project)")
    within = " AND ".join(where)
    source = binding.add(BILL, "String")
    sql = (
        "SELECT day, provider, project, name, sum(usd), sum(booked), sum(n), sum(unknown) FROM ("
        "SELECT toDate(started_at, 'UTC') AS day, toString(provider) AS provider, "
        "toString(project) AS project, "
        # A served name of another form than the asked one tells the release alone.
        "if(response_model = '', toString(model), toString(response_model)) AS name, "
        "ifNull(cost, toDecimal128(0, 12)) AS usd, toDecimal128(0, 12) AS booked, "
        f"toUInt64(operation IN {MODEL_OPERATIONS_SQL}) AS n, "
        f"toUInt64(unpriced OR (usage_unknown AND isNull(cost))) AS unknown "
        f"FROM calls WHERE {within} UNION ALL "
        "SELECT toDate(started_at, 'UTC') AS day, toString(provider) AS provider, "
        "toString(project) AS project, toString(model) AS name, "
        f"cost AS usd, if(cost_source = {source}, cost, toDecimal128(0, 12)) AS booked, "
        f"toUInt64(0) AS n, toUInt64(0) AS unknown FROM costs WHERE {within}"
        ") GROUP BY day, provider, project, name ORDER BY sum(n) DESC, name"
    )
    return [
        (day, provider, project, name, to_pico(usd), to_pico(booked), int(calls), int(unknown))
        for day, provider, project, name, usd, booked, calls, unknown in store.query(
            sql, binding.values
        ).rows
    ]
