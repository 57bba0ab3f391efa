"""What has arrived since one last looked: calls, dead letters and alerts in the log's order."""

# ruff: noqa: S608 - only text of this package is put together; every value is bound

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from callmeter_sinks.clickhouse.store import Store
from callmeter_sinks.queries.alerts import of_project
from callmeter_sinks.queries.dimensions import Binding

_ORIGIN = "log_ts, toString(log_id) AS log, partition, origin, idx"
_CALL = (
    "'call' AS kind, project, provider, model, operation, status, error_type, input_tokens, "
    "output_tokens, latency_us, cost, toString(call_id), "
    "replaceAll(toString(trace_id), '-', ''), '' AS detail"
)
_DEAD = (
    "'dead letter' AS kind, project, '' AS provider, '' AS model, '' AS operation, "
    "reason AS status, '' AS error_type, NULL AS input_tokens, NULL AS output_tokens, "
    "NULL AS latency_us, NULL AS cost, '' AS call, '' AS trace, detail"
)

_ALERT = (
    "a.log_ts, toString(a.log_id), a.partition, a.topic_offset, 0 AS idx, 'alert' AS kind_, "
    "a.project, a.provider, a.model, '' AS operation, a.kind, '' AS error_type, "
    "NULL AS input_tokens, NULL AS output_tokens, NULL AS latency_us, NULL AS cost, "
    "if(a.call_id = toUUID('00000000-0000-0000-0000-000000000000'), '', toString(a.call_id)), "
    "if(a.trace_id = toUUID('00000000-0000-0000-0000-000000000000'), '', "
    "replaceAll(toString(a.trace_id), '-', '')), a.message"
)


@dataclass(frozen=True, slots=True)
class Arrival:
    """A finished operation, a dead letter or an alert.

    ``status`` of a dead letter is its reason, of an alert its kind; ``origin`` of an alert is its
    offset in its own topic.
    """

    at: datetime
    log: str
    partition: int
    origin: int
    index: int
    kind: str
    project: str
    provider: str
    model: str
    operation: str
    status: str
    error_type: str
    input_tokens: int | None
    output_tokens: int | None
    latency_us: int | None
    cost_usd: Decimal | None
    call_id: str
    trace_id: str
    detail: str


def newest(store: Store, limit: int, *, project: str | None = None) -> list[Arrival]:
    """The last that arrived, oldest of them first."""
    binding = Binding()
    where = f"project = {binding.add(project, 'String')}" if project is not None else "1"
    found = [*_read(store, where, binding, limit), *_alerts(store, "1", Binding(), project, limit)]
    found.sort(key=_place, reverse=True)
    return found[:limit][::-1]


class Arrivals:
    """Follows a store from now on. Every arrival is given once, and none is left out.

    An insert fills its tables one after the other; a range is given when its calls and dead
    letters are as many as the ledger says.
    """

    def __init__(self, store: Store, *, project: str | None = None) -> None:
        self._store = store
        self._project = project
        self._seen: dict[tuple[str, int], int] = self._heads()
        self._told: dict[tuple[str, int], int] = self._alert_heads()

    def new(self) -> Iterator[Arrival]:
        """What has arrived since the last time."""
        for (log, partition), head in self._heads().items():
            after = self._seen.get((log, partition), -1)
            if head <= after:
                continue
            binding = Binding()
            where = (
                f"log_id = toUUID({binding.add(log, 'String')}) "
                f"AND partition = {binding.add(partition, 'UInt16')} "
                f"AND origin > {binding.add(after, 'Int64')} "
                f"AND origin <= {binding.add(head, 'Int64')}"
            )
            expected = self._store.query(
                f"SELECT sum(call_ends + refused + (verdict = 'refused')) FROM envelopes "
                f"WHERE {where}",
                binding.values,
            ).rows[0][0]
            found = _read(self._store, where, binding, None)
            if len(found) < expected:
                continue
            self._seen[log, partition] = head
            yield from (each for each in found[::-1] if self._project in (None, each.project))
        yield from self._new_alerts()

    def _new_alerts(self) -> Iterator[Arrival]:
        for (log, partition), head in self._alert_heads().items():
            after = self._told.get((log, partition), -1)
            if head <= after:
                continue
            binding = Binding()
            where = (
                f"a.log_id = toUUID({binding.add(log, 'String')}) "
                f"AND a.partition = {binding.add(partition, 'UInt16')} "
                f"AND a.topic_offset > {binding.add(after, 'Int64')} "
                f"AND a.topic_offset <= {binding.add(head, 'Int64')}"
            )
            self._told[log, partition] = head
            yield from _alerts(self._store, where, binding, self._project, None)[::-1]

    def _alert_heads(self) -> dict[tuple[str, int], int]:
        rows = self._store.query(
            "SELECT toString(log_id) AS log, partition, max(topic_offset) FROM alerts "
            "GROUP BY log, partition ORDER BY log, partition"
        ).rows
        return {(log, partition): head for log, partition, head in rows}

    def _heads(self) -> dict[tuple[str, int], int]:
        rows = self._store.query(
            "SELECT toString(log_id) AS log, partition, max(origin) FROM envelopes "
            "GROUP BY log, partition ORDER BY log, partition"
        ).rows
        return {(log, partition): head for log, partition, head in rows}


def _read(store: Store, where: str, binding: Binding, limit: int | None) -> list[Arrival]:
    """Newest first."""
    bound = f" LIMIT {binding.add(limit, 'UInt32')}" if limit is not None else ""
    order = f"ORDER BY log_ts DESC, log DESC, partition DESC, origin DESC, idx DESC{bound}"
    found: list[tuple[Any, ...]] = []
    for columns, table in ((_CALL, "calls"), (_DEAD, "dead_letters")):
        found += store.query(
            f"SELECT {_ORIGIN}, {columns} FROM {table} WHERE {where} {order}", binding.values
        ).rows
    found.sort(key=lambda row: row[:5], reverse=True)
    return [Arrival(*row) for row in found[:limit]]


def _alerts(
    store: Store, where: str, binding: Binding, project: str | None, limit: int | None
) -> list[Arrival]:
    """Newest first."""
    if project is not None:
        where += f" AND {of_project(binding.add(project, 'String'))}"
    bound = f" LIMIT {binding.add(limit, 'UInt32')}" if limit is not None else ""
    rows = store.query(
        f"SELECT {_ALERT} FROM alerts AS a WHERE {where} ORDER BY a.log_ts DESC, "
        f"toString(a.log_id) DESC, a.partition DESC, a.topic_offset DESC{bound}",
        binding.values,
    ).rows
    return [Arrival(*row) for row in rows]


def _place(arrival: Arrival) -> tuple[Any, ...]:
    return arrival.at, arrival.log, arrival.partition, arrival.origin, arrival.index
