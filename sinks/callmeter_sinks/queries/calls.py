"""Single calls: the listing, the errors, the tree of one trace."""

# ruff: noqa: S608 - only text of this package is put together; every value is bound

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

from callmeter.errors import UsageError
from callmeter_sinks.clickhouse.store import Store
from callmeter_sinks.queries.dimensions import (
    Binding,
    Filters,
    Period,
    filter_sql,
    with_project,
)
from callmeter_sinks.queries.projected import failures_sql

MAX_CALLS = 10_000
#: A copy that callmeter's own exporter sent on over OTLP: shown where its call is not stored here.
EXPORTED_SPAN = "exported_span"
_TRACE = re.compile(r"[0-9a-f]{32}\Z")


@dataclass(frozen=True, slots=True)
class CallRow:
    """One finished operation, or one that has begun only (``status`` is ``open``).

    Ids as on the wire: call a UUID, trace 32 and spans 16 hex digits; ``parent_span_id`` is empty
    at a root. Durations are microseconds. None is unknown.
    """

    call_id: str
    trace_id: str
    span_id: str
    parent_span_id: str
    started_at: datetime
    project: str
    environment: str
    service: str
    operation: str
    name: str
    provider: str
    model: str
    phase: str
    program: str
    node: str
    user: str
    session: str
    status: str
    error_type: str
    error_message: str
    attempts: int | None
    latency_us: int | None
    ttft_us: int | None
    usage: Mapping[str, int]
    input_tokens: int | None
    output_tokens: int | None
    cost_usd: Decimal | None
    cost_source: str
    unpriced: bool
    usage_unknown: bool
    tags: Mapping[str, str]
    attributes: Mapping[str, str]
    inputs: str
    outputs: str


@dataclass(frozen=True, slots=True)
class Span:
    """A node of a trace's tree; children by start time."""

    call: CallRow
    children: list[Span] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Trace:
    """A trace: roots are spans whose parent is not in the store (or that have none)."""

    trace_id: str
    roots: Sequence[Span]
    calls: int
    cost_usd: Decimal | None


@dataclass(frozen=True, slots=True)
class ErrorRow:
    """Failed calls of one kind, with the newest of them as an example."""

    provider: str
    model: str
    status: str
    error_type: str
    http_status: int
    calls: int
    last_at: datetime
    example: str
    example_call_id: str


# Columns are named after the fields of CallRow, so that the answer's row is the dataclass's.
_IDS = (
    "toString(call_id) AS call_id_, replaceAll(toString(trace_id), '-', '') AS trace_id_, "
    "lower(leftPad(hex(span_id), 16, '0')) AS span_id_, "
    "if(parent_span_id = 0, '', lower(leftPad(hex(parent_span_id), 16, '0'))) AS parent_span_id_, "
    "started_at, project, environment, service, operation, name, provider, model, phase, program, "
    "node, user, session"
)
_CALL = (
    f"{_IDS}, status, error_type, error_message, attempts, latency_us, ttft_us, usage, "
    "input_tokens, output_tokens, cost, cost_source, unpriced, usage_unknown, tags, attributes, "
    "inputs, outputs"
)
_OPEN = (
    f"{_IDS}, 'open' AS status, '' AS error_type, '' AS error_message, NULL AS attempts, "
    "NULL AS latency_us, NULL AS ttft_us, map() AS usage, NULL AS input_tokens, "
    "NULL AS output_tokens, NULL AS cost, '' AS cost_source, false AS unpriced, "
    "false AS usage_unknown, tags, attributes, inputs, '' AS outputs"
)


def calls(
    store: Store,
    *,
    since: datetime | None,
    until: datetime | None,
    project: str | None,
    filters: Filters | None,
    limit: int,
    before: datetime | None,
) -> list[CallRow]:
    """Newest first. See ``Queries.calls``."""
    _check_limit(limit)
    binding = Binding()
    where = Period.of(since, until).sql("started_at", binding)
    where += Period.of(None, before).sql("started_at", binding)
    where += filter_sql(with_project(filters, project), binding)
    answer = store.query(
        f"SELECT {_CALL} FROM calls WHERE {' AND '.join(where) or '1'} "
        f"ORDER BY started_at DESC, call_id LIMIT {binding.add(limit, 'UInt32')}",
        binding.values,
    )
    return [_call(row) for row in answer.rows]


def errors(
    store: Store,
    *,
    since: datetime | None,
    until: datetime | None,
    project: str | None,
    filters: Filters | None,
    limit: int,
) -> list[ErrorRow]:
    """Failed model calls by kind, most frequent first. See ``Queries.errors``."""
    _check_limit(limit)
    binding = Binding()
    groups = failures_sql(Period.of(since, until), with_project(filters, project), binding)
    answer = store.query(
        "SELECT provider, model, status, error_type, http_status, sum(n) AS number, "
        "max(last) AS last_at, argMax(said, last) AS example, toString(argMax(call, last)) AS id "
        f"FROM ({groups}) GROUP BY provider, model, status, error_type, http_status "
        f"ORDER BY number DESC, last_at DESC LIMIT {binding.add(limit, 'UInt32')}",
        binding.values,
    )
    return [ErrorRow(*row) for row in answer.rows]


def trace(store: Store, trace_id: str, *, project: str | None) -> Trace:
    """The tree of one trace, calls that have only begun included. See ``Queries.trace``."""
    wanted = trace_id.lower()
    if not _TRACE.match(wanted):
        raise UsageError("a trace id is 32 hexadecimal digits")
    binding = Binding()
    same = f"trace_id = toUUID({binding.add(_dashed(wanted), 'String')})"
    if project is not None:
        same += f" AND project = {binding.add(project, 'String')}"
    # Which have ended is sorted out here: asked of the engine, it would look through calls again.
    answer = store.query(
        f"SELECT true AS ended, {_CALL} FROM calls WHERE {same} UNION ALL "
        f"SELECT false AS ended, {_OPEN} FROM calls_open WHERE {same}",
        binding.values,
    )
    found = [(ended, _call(row)) for ended, *row in answer.rows]
    over = {row.call_id for ended, row in found if ended}
    rows = [row for ended, row in found if ended or row.call_id not in over]
    rows.sort(key=lambda call: (call.started_at, call.call_id))
    metered = {row.span_id for row in rows if row.operation != EXPORTED_SPAN}
    rows = [row for row in rows if row.operation != EXPORTED_SPAN or row.span_id not in metered]
    spans = {row.span_id: Span(row) for row in rows}
    roots = []
    for row in rows:
        parent = spans.get(row.parent_span_id)
        if parent is None or _below(spans, row.parent_span_id, row.span_id):
            roots.append(spans[row.span_id])
        else:
            parent.children.append(spans[row.span_id])
    known = [row.cost_usd for row in rows if row.cost_usd is not None]
    return Trace(wanted, roots, len(rows), sum(known, Decimal(0)) if known else None)


def _below(spans: Mapping[str, Span], start: str, target: str) -> bool:
    """Whether the chain of parents from ``start`` meets ``target``: a loop that a producer made."""
    seen = set()
    while start in spans and start not in seen:
        if start == target:
            return True
        seen.add(start)
        start = spans[start].call.parent_span_id
    return False


def _call(row: Sequence[Any]) -> CallRow:
    return CallRow(*row)


def _dashed(digits: str) -> str:
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def _check_limit(limit: int) -> None:
    if not 1 <= limit <= MAX_CALLS:
        raise UsageError(f"the limit is 1 to {MAX_CALLS}")
