"""The ledger against the tables of events, and against the counters in the headers."""

# ruff: noqa: S608 - only text of this package is put together; every value is bound

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from datetime import datetime
from functools import partial

from callmeter_sinks.checks.outcome import Check, Comparison, Unverifiable, settled
from callmeter_sinks.checks.two_sides import Side, compare
from callmeter_sinks.clickhouse.store import Store
from callmeter_sinks.queries.books import Gap, SourceRow
from callmeter_sinks.queries.dimensions import Binding, Period, later

#: Table of events to what the ledger says about its lines.
_LINES = {
    "calls": "call_ends",
    "calls_open": "call_begins",
    "costs": "costs",
    "metrics": "metrics",
    "annotations": "annotations",
    "experiments": "experiments",
    "dead_letters": "refused + (verdict = 'refused')",
}
_RECORD = ("log_id", "partition", "origin")


def check_ledger(
    store: Store, period: Period, horizons: Mapping[str, datetime]
) -> tuple[list[Check], list[Unverifiable]]:
    """Per record of the log, in log time: each table holds what the ledger says, each line once."""
    checks: list[Check] = []
    unverifiable: list[Unverifiable] = []
    for table, lines in _LINES.items():
        within, gone = later(period, horizons, ("envelopes", table))
        if gone is not None and table != "calls_open":
            unverifiable.append(
                Unverifiable(f"{table} that arrived before {gone:%Y-%m-%d}", "retention")
            )
        found = settled(partial(_table, store, table, lines, within))
        checks += found.checks()
    within, _ = later(period, horizons, ("envelopes",))
    checks += settled(partial(_itself, store, within)).checks()
    return checks, unverifiable


def check_counters(
    ask: Callable[[], tuple[list[Gap], list[SourceRow]]],
) -> tuple[list[Gap], list[Check], list[Unverifiable]]:
    """What each source says it accepted is what arrived, what its gaps held, and what it dropped.

    ``ask`` reads gaps and sources, which are two statements: what arrives between them is a
    difference for a moment only. The gaps returned are those of the last look.

    Headers count drops before and after an event had a number together, and the latter are in gaps
    too: so drops may explain what is left, up to as many as the source itself tells of.
    """
    gaps: list[Gap] = []

    def look() -> Comparison:
        nonlocal gaps
        gaps, sources = ask()
        return _counters(sources, gaps)

    checks = settled(look).checks()
    unverifiable = [
        Unverifiable(f"the first envelopes of source {name}", "older than the ledger")
        for name in sorted({gap.source for gap in gaps if gap.removed})
    ]
    return gaps, checks, unverifiable


def _counters(sources: list[SourceRow], gaps: list[Gap]) -> Comparison:
    lost: dict[str, int] = {}
    removed = {gap.source for gap in gaps if gap.removed}
    for gap in gaps:
        lost[gap.source] = lost.get(gap.source, 0) + gap.events
    known = [row for row in sources if row.source not in removed]
    explained: dict[str, int] = {}
    differing: set[Hashable] = set()
    for row in known:
        left = row.accepted - row.stored - lost.get(row.source, 0)
        explained[row.source] = min(max(left, 0), sum(row.dropped.values()))
        if left != explained[row.source]:
            differing.add(row.source)
    what = "events by the headers' counters, less gaps"
    stored = sum(row.stored for row in known)
    said = sum(row.accepted - lost.get(row.source, 0) - explained[row.source] for row in known)
    return Comparison({what: (stored, said)}, {what: differing})


def _table(store: Store, table: str, lines: str, period: Period) -> Comparison:
    """Rows by record, and rows beyond the first of one (record, line number): duplicates."""
    binding = Binding()
    within = " AND ".join(period.sql("log_ts", binding)) or "1"
    keys = ", ".join(_RECORD)
    raw = (
        f"SELECT {keys}, toInt64(count()) AS n, toInt64(count() - uniqExact(idx)) AS twice "
        f"FROM {table} WHERE {within} GROUP BY {keys}"
    )
    ledger = (
        f"SELECT {keys}, toInt64({lines}) AS n, toInt64(0) AS twice FROM envelopes WHERE {within}"
    )
    measures = {"n": "sum", "twice": "sum"}
    found = compare(store, _RECORD, measures, (Side([raw]), Side([ledger])), binding)
    return Comparison(
        {
            f"{table} in the ledger": found.totals["n"],
            f"{table} stored twice": found.totals["twice"],
        },
        {
            f"{table} in the ledger": found.differing["n"],
            f"{table} stored twice": found.differing["twice"],
        },
    )


def _itself(store: Store, period: Period) -> Comparison:
    """Each record once, its lines adding up: n = events + refused, events = lines by kind."""
    binding = Binding()
    within = " AND ".join(period.sql("log_ts", binding)) or "1"
    keys = ", ".join(_RECORD)
    kinds = " + ".join(
        f"toInt64({name})"
        for name in (
            "call_begins", "call_ends", "costs", "metrics", "annotations", "experiments",
            "heartbeats",
        )
    )  # fmt: skip
    accepted = "verdict = 'accepted'"
    raw = (
        f"SELECT {keys}, toInt64(count()) AS envelopes, "
        f"sum(toInt64(if({accepted}, toInt64(events) + refused, 0))) AS lines, "
        f"sum(if({accepted}, {kinds}, 0)) AS kinds "
        f"FROM envelopes WHERE {within} GROUP BY {keys}"
    )
    books = (
        f"SELECT {keys}, toInt64(1) AS envelopes, any(if({accepted}, toInt64(n), 0)) AS lines, "
        f"any(if({accepted}, toInt64(events), 0)) AS kinds "
        f"FROM envelopes WHERE {within} GROUP BY {keys}"
    )
    names = {
        "envelopes": "envelopes, each record once",
        "lines": "lines of accepted envelopes",
        "kinds": "events by kind",
    }
    measures = dict.fromkeys(names, "sum")
    found = compare(store, _RECORD, measures, (Side([raw]), Side([books])), binding)
    return Comparison(
        {names[what]: found.totals[what] for what in names},
        {names[what]: found.differing[what] for what in names},
    )
