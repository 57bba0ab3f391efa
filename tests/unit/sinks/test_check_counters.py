"""The counters in the headers: what a producer dropped explains no more than it tells of."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from callmeter_sinks.checks import outcome
from callmeter_sinks.checks.ledger import check_counters
from callmeter_sinks.queries.books import Gap, SourceRow

AT = datetime(2026, 11, 1, tzinfo=UTC)
SOURCE = "01912d68-783e-7a03-8467-5661c1243ad4"


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Differences are looked at again without waiting."""
    monkeypatch.setattr(outcome, "PAUSE_S", 0.0)


def row(accepted: int, stored: int, dropped: dict[str, int]) -> SourceRow:
    return SourceRow(
        SOURCE, "p", "s", 3, AT, AT, accepted, stored, accepted - stored, dropped, False
    )  # fmt: skip


@pytest.mark.parametrize(
    ("accepted", "stored", "dropped", "gap", "equal"),
    [
        (100, 100, {}, 0, True),
        (100, 90, {}, 10, True),
        (100, 90, {}, 0, False),
        (100, 90, {"queue_full": 10}, 0, True),  # dropped before they had a number
        (100, 90, {"queue_full": 9}, 0, False),  # one more is gone than it tells of
        (100, 80, {"queue_full": 20}, 15, True),  # an envelope given up is a gap as well
        (100, 110, {"queue_full": 20}, 0, False),  # more arrived than was ever accepted
    ],
)
def test_what_is_missing_is_explained_or_differs(
    accepted: int, stored: int, dropped: dict[str, int], gap: int, equal: bool
) -> None:
    gaps = [Gap(SOURCE, "p", "s", 1, 1, 1, gap, False)] if gap else []
    told, (check,), _ = check_counters(lambda: (gaps, [row(accepted, stored, dropped)]))
    assert told == gaps
    assert check.equal is equal
    assert check.examples == (() if equal else (SOURCE,))


def test_a_gap_that_closes_between_the_two_statements_is_no_difference() -> None:
    open_gap = [Gap(SOURCE, "p", "s", 1, 1, 1, 10, False)]
    looks = [(open_gap, [row(100, 100, {})]), ([], [row(100, 100, {})])]
    told, (check,), _ = check_counters(lambda: looks.pop(0))
    assert check.equal
    assert (check.raw, check.rollups) == (100, 100)
    assert told == []
