"""``verify``: the store against itself, and against what producers and the meter say of it.

Rollups against raw rows in every window and dimension; the control totals of each checkpoint of the
meter against the rows of its origins; the ledger against each table, line by line; the counters in
the headers against what arrived. What retention removed, and what was accepted as lost, is named
and not compared. Reads only, and may run while sinks write.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from callmeter_sinks.checks.controls import check_controls
from callmeter_sinks.checks.ledger import check_counters, check_ledger
from callmeter_sinks.checks.outcome import Check, Number, Unverifiable
from callmeter_sinks.checks.retention import horizons
from callmeter_sinks.checks.rollups import check_rollups
from callmeter_sinks.clickhouse.store import Store
from callmeter_sinks.queries.books import Gap
from callmeter_sinks.queries.dimensions import Period
from callmeter_sinks.queries.facade import Queries
from callmeter_sinks.report import plain_usd


@dataclass(frozen=True, slots=True)
class VerifyResult:
    """What was compared. ``gaps`` are envelopes that never arrived: loss, but no difference."""

    checks: Sequence[Check]
    gaps: Sequence[Gap]
    unverifiable: Sequence[Unverifiable]

    @property
    def equal(self) -> bool:
        """Whether everything that could be compared agrees."""
        return all(check.equal for check in self.checks)

    def to_json(self) -> dict[str, Any]:
        """``{"equal", "checks", "gaps", "unverifiable"}``, ready for JSON; money as text."""
        return {
            "equal": self.equal,
            "checks": [_check(check) for check in self.checks],
            "gaps": [asdict(gap) for gap in self.gaps],
            "unverifiable": [asdict(each) for each in self.unverifiable],
        }


def verify(
    store: Store, since: datetime | None = None, until: datetime | None = None
) -> VerifyResult:
    """Compare everything that [since, until) covers; without bounds, the whole store.

    Windows are compared by event time, widened to whole minutes; ledger and checkpoints by log
    time.
    The counters of the headers are compared for every source heard from since then.
    """
    period = Period.of(since, until)
    kept_from = horizons(store)
    rollups, gone = check_rollups(store, period, kept_from)
    controls, explained = check_controls(store, period, kept_from)
    ledger, removed = check_ledger(store, period, kept_from)
    queries = Queries(store)
    gaps, counters, older = check_counters(
        lambda: (queries.gaps(since=since), queries.sources(since=since))
    )
    return VerifyResult(
        [*rollups, *controls, *ledger, *counters],
        gaps,
        [*gone, *explained, *removed, *older, *_quarantined(store)],
    )


def _quarantined(store: Store) -> list[Unverifiable]:
    """Records that ClickHouse refused: their deltas are stored, their rows are not."""
    answer = store.query(
        "SELECT topic, partition, offset, any(reason) FROM sink_quarantine "
        "GROUP BY topic, partition, offset ORDER BY ALL"
    )
    return [
        Unverifiable(f"{topic} partition {partition} offset {offset}", f"in quarantine: {reason}")
        for topic, partition, offset, reason in answer.rows
    ]


def _check(check: Check) -> dict[str, Any]:
    said: dict[str, Any] = {
        "what": check.what,
        "raw": _number(check.raw),
        "rollups": _number(check.rollups),
        "equal": check.equal,
    }
    if not check.equal:
        said |= {"differing": check.differing, "examples": list(check.examples)}
    return said


def _number(value: Number) -> int | str:
    return plain_usd(value) if isinstance(value, Decimal) else int(value)
