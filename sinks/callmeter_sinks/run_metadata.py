"""The stored side of a run's metadata document: its calls, and the last thing said of it.

Which tag and which annotation mark a run is the business of whoever asks: nothing here knows the
document.
"""

# ruff: noqa: S608 - only text of this package is put together; every value is bound

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from callmeter.money import to_pico
from callmeter_sinks.clickhouse.store import Store
from callmeter_sinks.queries.dimensions import (
    MODEL_OPERATIONS_SQL,
    Binding,
    filter_sql,
    with_project,
)

#: What a model call is stored as when the call inside it was the billable one.
_WRAPPER = "invoke_model"


@dataclass(frozen=True, slots=True)
class RunCall:
    """A finished call of a run. Unknown latency, tokens and cost are 0; cost in pico-USD."""

    call_id: str
    span_id: str
    name: str
    model: str
    operation: str
    status: str
    latency_us: int
    input_tokens: int
    output_tokens: int
    cost_pico: int
    attributes: Mapping[str, str]


def run_calls(store: Store, tag: str, run_id: str, *, project: str | None = None) -> list[RunCall]:
    """All finished calls that carry the tag, in order of their start.

    A call's cost includes later corrections; one that wrapped the billable call has its usage.
    """
    binding = Binding()
    where = " AND ".join(filter_sql(with_project({f"tag:{tag}": run_id}, project), binding))
    answer = store.query(
        "SELECT toString(call_id), lower(leftPad(hex(span_id), 16, '0')), name, model, operation, "
        "status, ifNull(latency_us, 0), ifNull(input_tokens, 0), ifNull(output_tokens, 0), cost, "
        f"attributes FROM calls WHERE {where} ORDER BY started_at, partition, origin, idx",
        binding.values,
    )
    calls = [RunCall(*(*known, _pico(cost), said)) for *known, cost, said in answer.rows]
    corrections = dict(
        store.query(
            "SELECT toString(call_id), sum(cost) FROM costs "
            f"WHERE call_id IN (SELECT call_id FROM calls WHERE {where}) GROUP BY call_id",
            binding.values,
        ).rows
    )
    calls = [
        replace(call, cost_pico=call.cost_pico + _pico(corrections[call.call_id]))
        if call.call_id in corrections
        else call
        for call in calls
    ]
    if any(call.operation == _WRAPPER for call in calls):
        calls = _unwrapped(store, calls, where, binding.values)
    return calls


def _unwrapped(
    store: Store, calls: Iterable[RunCall], where: str, values: Mapping[str, Any]
) -> list[RunCall]:
    """Wrappers with the usage and cost of the model calls that they wrapped."""
    rows = store.query(
        "SELECT lower(leftPad(hex(span_id), 16, '0')), lower(leftPad(hex(parent_span_id), 16, '0'))"
        f", operation IN {MODEL_OPERATIONS_SQL}, ifNull(input_tokens, 0), "
        "ifNull(output_tokens, 0), cost FROM calls WHERE trace_id IN "
        f"(SELECT trace_id FROM calls WHERE {where} AND operation = '{_WRAPPER}')",
        values,
    ).rows
    parents = {row[0]: row[1] for row in rows}
    wrappers = {call.span_id for call in calls if call.operation == _WRAPPER}
    found: defaultdict[str, list[tuple[int, int, int]]] = defaultdict(list)
    for span, _, is_model, tokens_in, tokens_out, cost in rows:
        seen: set[str] = set()
        around = parents.get(span, "")
        while around and around not in wrappers and around not in seen:
            seen.add(around)
            around = parents.get(around, "")
        if is_model and around in wrappers:
            found[around].append((tokens_in, tokens_out, _pico(cost)))
    return [
        replace(
            call,
            input_tokens=sum(each[0] for each in found[call.span_id]),
            output_tokens=sum(each[1] for each in found[call.span_id]),
            cost_pico=sum(each[2] for each in found[call.span_id]),
        )
        if call.span_id in wrappers
        else call
        for call in calls
    ]


def run_facts(
    store: Store, note: str, *, run: str, project: str | None = None
) -> dict[str, Any] | None:
    """The metadata of the last annotation ``note`` about a run; None if there is none.

    ``run`` is the run's id (a UUID, the call annotated), else a task's name (``execution`` →
    ``task_name`` in the metadata), and then the newest run of it is meant.
    """
    binding = Binding()
    where = [f"text = {binding.add(note, 'String')}"]
    if is_run_id(run):
        where.append(f"call_id = toUUID({binding.add(run, 'String')})")
    else:
        task = "JSONExtractString(metadata, 'execution', 'task_name')"
        where.append(f"{task} = {binding.add(run, 'String')}")
    where += filter_sql(with_project(None, project), binding)
    rows = store.query(
        f"SELECT metadata FROM annotations WHERE {' AND '.join(where)} "
        "ORDER BY ts DESC, origin DESC, idx DESC LIMIT 1",
        binding.values,
    ).rows
    if not rows:
        return None
    facts: dict[str, Any] = json.loads(rows[0][0])
    return facts


def is_run_id(text: str) -> bool:
    """Whether a text is an id and no name of a task."""
    try:
        return str(UUID(text)) == text.lower()
    except ValueError:
        return False


def _pico(cost: Any) -> int:
    return 0 if cost is None else to_pico(cost)
