"""Everything that reads a store, asked with arguments that reach rows on both shards."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from datetime import UTC, date, datetime
from typing import Any

from callmeter_sinks.bill import reconcile
from callmeter_sinks.bill_forms import Bill, BillKey
from callmeter_sinks.clickhouse.store import Store
from callmeter_sinks.progress import arrived
from callmeter_sinks.queries import Queries, details, repricing
from callmeter_sinks.queries.arrivals import newest
from callmeter_sinks.queries.twice import metered_twice
from callmeter_sinks.run_metadata import run_calls
from support.ledger import call_id
from support.sharded_traffic import TRACE, USER

_MARCH = {
    "since": datetime(2026, 3, 3, tzinfo=UTC),
    "until": datetime(2026, 3, 5, 10, 30, 1, tzinfo=UTC),
}
_BILL = Bill("plain", "", {BillKey(date(2026, 3, 3), "openai", "", "gpt-4o"): 10**12})
#: Every method of ``Queries`` at least once; ``test_every_question_is_asked`` counts them.
QUESTIONS: dict[str, Callable[[Queries], Any]] = {
    "report": lambda ask: ask.report(),
    "report by windows": lambda ask: ask.report(by=["hour", "model"], **_MARCH),
    "report by day": lambda ask: ask.report(by=["day"], filters={"model": "gpt-4o"}),
    "report by minute": lambda ask: ask.report(by=["minute", "service"], top=3, **_MARCH),
    "report by user": lambda ask: ask.report(by=["user"], latencies=False, **_MARCH),
    "report of users": lambda ask: ask.report(by=["user", "session"], top=5, order="-calls"),
    "report by tag": lambda ask: ask.report(by=["tag:team", "error_type"], project="shop"),
    "spenders": lambda ask: ask.spenders(top=5),
    "spenders of a month": lambda ask: ask.spenders(["user", "session"], **_MARCH),
    "report_table": lambda ask: ask.report_table(by=["model", "day"]).to_pylist(),
    "calls_table": lambda ask: ask.calls_table(project="shop").to_pylist(),
    "usage": lambda ask: ask.usage(by=["model", "day"]),
    "usage by user": lambda ask: ask.usage(by=["user"], **_MARCH),
    "operations": lambda ask: ask.operations(by=["operation", "day"]),
    "calls": lambda ask: ask.calls(limit=500),
    "calls of a user": lambda ask: ask.calls(filters={"user": USER}, limit=3),
    "errors": lambda ask: list(map(_but_example, ask.errors(**_MARCH))),
    "errors ever": lambda ask: list(map(_but_example, ask.errors())),
    "trace": lambda ask: ask.trace(TRACE),
    "trace of a project": lambda ask: ask.trace(TRACE, project="shop"),
    "series": lambda ask: ask.series("loss", experiment="run-1"),
    "series by time": lambda ask: ask.series("loss", labels=["rank=1"], order="timestamp"),
    "catalog": lambda ask: ask.catalog(),
    "experiments": lambda ask: ask.experiments(text="warmup", metadata=["rank2"]),
    "experiments ever": lambda ask: ask.experiments(),
    "alerts": lambda ask: ask.alerts(),
    "alerts of a project": lambda ask: ask.alerts(project="shop", kind="gap"),
    "stuck": lambda ask: ask.stuck(),
    "in_flight": lambda ask: ask.in_flight(),
    "budget_status": lambda ask: ask.budget_status(),
    "budget_status of a project": lambda ask: ask.budget_status(project="shop"),
    "gaps": lambda ask: ask.gaps(closed=True),
    "audit": lambda ask: ask.audit(),
    "program_metrics": lambda ask: ask.program_metrics("bot"),
    "sources": lambda ask: ask.sources(),
    "dead_letters": lambda ask: ask.dead_letters(limit=500),
}  # fmt: skip
#: What reads a store beside ``Queries``.
OTHERS: dict[str, Callable[[Store], Any]] = {
    "arrived": lambda store: arrived(store, [row.source for row in Queries(store).sources()]),
    "bill": lambda store: reconcile(store, _BILL),
    "corrections": lambda store: details.corrections_of(store, [call_id(11), call_id(12)]),
    "dead letters by reason": lambda store: details.dead_letter_reasons(
        store, since=None, until=None, project=None),
    "last values": lambda store: details.last_values(store, "run-1", project="shop"),
    "notes": lambda store: details.notes(store, "run-1", project="shop", limit=9),
    "newest": lambda store: newest(store, 200),
    "priced calls": lambda store: list(
        repricing.priced_calls(store, since=None, until=None, project="shop")),
    "projects": lambda store: repricing.projects(store, since=None, until=None, project=None),
    "run": lambda store: run_calls(store, "run", "r1"),
    "trace of a call": lambda store: details.trace_of_call(store, call_id(12), project=None),
    "twice": lambda store: metered_twice(store, since=None),
    "unpriced": lambda store: repricing.unpriced(store, since=None, until=None, project=None),
}  # fmt: skip


#: Methods whose order leaves nothing open: of the rest rows of one time may change places.
IN_ORDER = {"report", "report_table", "series", "alerts", "audit"}


def unordered(value: Any) -> Any:
    """A value to compare with another, whatever the order of what it holds."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: unordered(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {key: unordered(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return sorted(map(unordered, value), key=repr)
    return value


def _but_example(row: Any) -> tuple[str, ...]:
    """Of calls that failed in the same microsecond any may be the example."""
    return tuple(str(value) for value in (row.model, row.status, row.error_type, row.calls))
