"""Figures over time, from rollups where they know the dimensions: one statement a chart."""

# ruff: noqa: S608 - only text of this package is put together; every value is bound

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from operator import add
from typing import Any

from callmeter.schema.histogram import midpoint_us
from callmeter_sinks.clickhouse.store import Store
from callmeter_sinks.dashboard.view import View
from callmeter_sinks.queries import usage
from callmeter_sinks.queries.dimensions import (
    WINDOWS,
    Binding,
    Period,
    filter_sql,
    with_project,
)
from callmeter_sinks.queries.sources import IS_CALL, SUMS, Question
from callmeter_sinks.queries.usage import Report, ReportRow

_LEVELS = "0.5, 0.95, 0.99"
_CALLS, _FAILURES, _COST = (SUMS.index(name) for name in ("calls", "failures", "cost"))


@dataclass(frozen=True, slots=True)
class Sums:
    """One group in one window. ``cost`` sums what is known."""

    start: datetime
    group: str
    calls: int
    failures: int
    cost: Decimal


@dataclass(frozen=True, slots=True)
class Durations:
    """p50, p95 and p99 of one window in milliseconds; None where nothing was measured."""

    start: datetime | None
    latency_ms: Sequence[float] | None
    ttft_ms: Sequence[float] | None


def over_time(store: Store, view: View, by: str, top: int) -> tuple[Report, list[Sums]]:
    """The costliest groups of one dimension with totals, and all groups by window in order of time.

    The report is what ``Queries.report`` tells, added up from the windows: sums are read once.
    """
    asked = Question.of(store, [view.window, by], **view.asked())  # type: ignore[arg-type]
    binding = Binding()
    rows = store.query(
        f"{usage.groups_sql(asked, binding)} ORDER BY k0, k1",
        binding.values,
        asked.settings(store),
    ).rows
    added: dict[str, list[Any]] = {}
    for _, group, *measures in rows:
        before = added.get(group)
        added[group] = measures if before is None else list(map(add, before, measures))
    whole = Question.of(store, [by], **view.asked())  # type: ignore[arg-type]
    latencies = usage.latencies(store, whole)
    figures = {
        group: usage.figures(measures, latencies.get((group,))) for group, measures in added.items()
    }
    ranked = sorted(figures, key=lambda group: (-added[group][_COST], -added[group][_CALLS], group))
    report = Report(
        by=[by],
        rows=[ReportRow({by: group}, figures[group]) for group in ranked[:top]],
        totals=usage.figures(
            [sum(each) for each in zip(*added.values(), strict=True)] or [0] * len(SUMS),
            latencies.get(None),
        ),
        since=whole.period.since,
        until=whole.period.until,
    )
    windows = [
        Sums(_utc(start), group, measures[_CALLS], measures[_FAILURES], Decimal(measures[_COST]))
        for start, group, *measures in rows
    ]
    return report, windows


def spent(store: Store, view: View, since: datetime) -> tuple[int, Decimal]:
    """Calls that began since then, and their known cost."""
    asked = Question.of(store, [], **{**view.asked(), "since": since, "until": None})  # type: ignore[arg-type]
    binding = Binding()
    rows = store.query(
        f"SELECT {asked.added('calls')}, {asked.added('cost')} FROM ({asked.sums_sql(binding)})",
        binding.values,
        asked.settings(store),
    ).rows
    return (int(rows[0][0]), Decimal(rows[0][1])) if rows else (0, Decimal(0))


def durations(store: Store, view: View) -> tuple[list[Durations], Durations]:
    """Latency and time to first token by window, and over the whole view."""
    asked = Question.of(store, [view.window], **view.asked())  # type: ignore[arg-type]
    binding = Binding()
    if asked.raw:
        source, function, values = _raw(view, binding), "quantilesExact", "{}_us"
        number = "count({}_us)"
    else:
        measures = "r.latency AS latency, r.ttft AS ttft"
        source = asked.rollups_sql("hist", measures, IS_CALL, binding)
        function, values = "quantilesExactWeightedArray", "mapKeys({0}), mapValues({0})"
        number = "sum(length({}))"
    states = ", ".join(
        f"{function}State({_LEVELS})({values.format(name)}) AS {name}_state, "
        f"{number.format(name)} AS {name}_n"
        for name in ("latency", "ttft")
    )
    merged = ", ".join(
        f"{function}Merge({_LEVELS})({name}_state), sum({name}_n)" for name in ("latency", "ttft")
    )
    answer = store.query(
        f"SELECT grouping(k0) AS whole, k0, {merged} FROM ("
        f"SELECT {WINDOWS[view.window]}(start) AS k0, {states} FROM ({source}) GROUP BY k0) "
        "GROUP BY GROUPING SETS ((k0), ()) ORDER BY whole, k0",
        binding.values,
        asked.settings(store),
    )
    found, total = [], Durations(None, None, None)
    for whole, start, latency, latencies, ttft, ttfts in answer.rows:
        row = Durations(
            None if whole else _utc(start),
            _ms(latency, latencies, raw=asked.raw),
            _ms(ttft, ttfts, raw=asked.raw),
        )
        if whole:
            total = row
        else:
            found.append(row)
    return found, total


def bounds(store: Store, project: str | None) -> tuple[datetime, datetime] | None:
    """Start of the first and the last call there are, None if there are none."""
    binding = Binding()
    where = f"AND project = {binding.add(project, 'String')}" if project is not None else ""
    rows = store.query(
        f"SELECT min(first_at), max(last_at) FROM rollup_1d WHERE {IS_CALL} {where} "
        "HAVING count() > 0",
        binding.values,
    ).rows
    if not rows or rows[0][0] is None:
        return None
    return _utc(rows[0][0]), _utc(rows[0][1])


def projects(store: Store) -> list[str]:
    """Every project that has been heard of, by name."""
    rows = store.query(
        "SELECT DISTINCT toString(project) AS p FROM ("
        "SELECT project FROM rollup_1d UNION ALL SELECT project FROM experiments) "
        "WHERE p != '' ORDER BY p LIMIT 500"
    ).rows
    return [row[0] for row in rows]


def _raw(view: View, binding: Binding) -> str:
    period = Period.of(view.since, view.until)
    where = [
        IS_CALL,
        *period.sql("started_at", binding),
        *filter_sql(with_project(view.filters, view.project), binding),
    ]
    return (
        "SELECT toDateTime(started_at, 'UTC') AS start, latency_us, ttft_us FROM calls "
        f"WHERE {' AND '.join(where)}"
    )


def _ms(values: Sequence[Any], number: int, *, raw: bool) -> list[float] | None:
    if not number:
        return None
    return [(float(each) if raw else midpoint_us(each)) / 1000 for each in values]


def _utc(moment: datetime) -> datetime:
    return moment.astimezone(UTC)
