"""The newest calls as their page lists them: the columns it shows, and nothing else of a call."""

# ruff: noqa: S608 - only text of this package is put together; every value is bound

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from callmeter_sinks.clickhouse.store import Store
from callmeter_sinks.dashboard.view import View, floor
from callmeter_sinks.queries.dimensions import Binding, Period, filter_sql, with_project

#: How far back is looked first: there the newest calls mostly are.
_BACK = (timedelta(hours=1), timedelta(days=1))
# A row of 51 is found in nearly as many places of the table, and each column of each place costs.
_COLUMNS = (
    "toString(call_id), replaceAll(toString(trace_id), '-', ''), started_at, status, error_type, "
    "operation, name, model, service, user, input_tokens, output_tokens, cost, unpriced, latency_us"
)


@dataclass(frozen=True, slots=True)
class ListedCall:
    """A finished operation; fields as those of ``queries.calls.CallRow``."""

    call_id: str
    trace_id: str
    started_at: datetime
    status: str
    error_type: str
    operation: str
    name: str
    model: str
    service: str
    user: str
    input_tokens: int | None
    output_tokens: int | None
    cost_usd: Decimal | None
    unpriced: bool
    latency_us: int | None


def newest(
    store: Store, view: View, *, before: datetime | None, now: datetime, limit: int
) -> list[ListedCall]:
    """The newest calls of a view that began before then, at most ``limit``, newest first.

    The last hour is looked at first, then the last day, and the whole view only if these hold too
    few. Both begin with a whole hour, as the table's key does.
    """
    until = min((each for each in (before, view.until) if each is not None), default=None)
    # A producer's clock may be ahead: without an end, what is yet to begin is listed too.
    end = now if until is None else min(until, now)
    for back in _BACK:
        since = floor(end - back, "hour")
        if view.since is not None and since <= view.since:
            break
        found = _between(store, view, Period(since, until), limit)
        if len(found) == limit:
            return found
    return _between(store, view, Period(view.since, until), limit)


def _between(store: Store, view: View, period: Period, limit: int) -> list[ListedCall]:
    binding = Binding()
    where = [
        *period.sql("started_at", binding),
        *filter_sql(with_project(view.filters, view.project), binding),
    ]
    answer = store.query(
        f"SELECT {_COLUMNS} FROM calls WHERE {' AND '.join(where) or '1'} "
        f"ORDER BY started_at DESC, call_id LIMIT {binding.add(limit, 'UInt32')}",
        binding.values,
    )
    return [ListedCall(*row) for row in answer.rows]
