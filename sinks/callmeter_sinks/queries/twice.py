"""Calls that were metered twice: by the SDK, and by spans over OTLP of the same program."""

# ruff: noqa: S608 - only text of this package is put together; every value is bound

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from callmeter_sinks.clickhouse.store import Store
from callmeter_sinks.queries.dimensions import MODEL_OPERATIONS_SQL, Binding, Period

#: Calls without a common trace are only alike; so many pairs are no coincidence any more.
MIN_ALIKE = 3
_VIA = "attributes['callmeter.via']"
_END = "addMicroseconds(started_at, latency_us)"


@dataclass(frozen=True, slots=True)
class Twice:
    """A service whose calls come by both roads.

    ``pairs`` are calls of the SDK with a call over OTLP at the same time, of one trace
    (``same_trace``), or else of the same model with the same tokens. The examples are call ids.
    """

    project: str
    service: str
    otlp_service: str
    model: str
    same_trace: bool
    pairs: int
    sdk_call: str
    otlp_call: str

    def __str__(self) -> str:
        how = "in one trace" if self.same_trace else "with the same tokens at the same time"
        return (
            f"{self.project}/{self.service or '-'}: {self.pairs:,} calls of {self.model} came from "
            f"the SDK and over OTLP {how} (as {self.sdk_call} and {self.otlp_call}): they are "
            "billed twice; use one of the two for these calls"
        )


def metered_twice(
    store: Store,
    *,
    since: datetime | None,
    until: datetime | None = None,
    project: str | None = None,
    limit: int = 20,
) -> list[Twice]:
    """Programs instrumented twice, by calls that began in the period; most pairs first.

    A pair is one project's calls of model operations, one by each road, whose times overlap. The
    store joins the period's calls with themselves: give it hours, not years.
    """
    found = [
        *_pairs(store, since, until, project, limit, same_trace=True),
        *_pairs(store, since, until, project, limit, same_trace=False),
    ]
    by_trace = {(t.project, t.service, t.otlp_service, t.model) for t in found if t.same_trace}
    kept = [
        t
        for t in found
        if t.same_trace or (t.project, t.service, t.otlp_service, t.model) not in by_trace
    ]
    return sorted(kept, key=lambda t: -t.pairs)[:limit]


def _pairs(
    store: Store,
    since: datetime | None,
    until: datetime | None,
    project: str | None,
    limit: int,
    *,
    same_trace: bool,
) -> list[Twice]:
    binding = Binding()
    where = [f"operation IN {MODEL_OPERATIONS_SQL}", "latency_us IS NOT NULL"]
    where += Period.of(since, until).sql("started_at", binding)
    if project is not None:
        where.append(f"project = {binding.add(project, 'String')}")
    keys = "trace_id" if same_trace else "model, input_tokens, output_tokens"
    if not same_trace:
        where.append("input_tokens > 0 AND output_tokens > 0")
    columns = f"project, {keys}, service, call_id, started_at, {_END} AS ended_at"
    columns += ", model" if same_trace else ""
    rows = f"SELECT {columns} FROM calls WHERE {' AND '.join(where)}"
    least = binding.add(1 if same_trace else MIN_ALIKE, "UInt32")
    model = "o.model" if same_trace else "model"
    answer = store.query(
        f"SELECT project, s.service, o.service, any({model}) AS model_, "
        "uniqExact(s.call_id) AS pairs, toString(min(s.call_id)), toString(min(o.call_id)) "
        f"FROM ({rows} AND {_VIA} = '') AS s INNER JOIN ({rows} AND {_VIA} = 'otlp') AS o "
        f"USING (project, {keys}) "
        "WHERE s.started_at <= o.ended_at AND o.started_at <= s.ended_at "
        f"GROUP BY project, s.service, o.service{'' if same_trace else ', model'} "
        f"HAVING pairs >= {least} ORDER BY pairs DESC LIMIT {binding.add(limit, 'UInt32')}",
        binding.values,
    )
    return [
        Twice(row[0], row[1], row[2], row[3], same_trace, row[4], row[5], row[6])
        for row in answer.rows
    ]
