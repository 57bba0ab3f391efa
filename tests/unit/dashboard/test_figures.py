"""Figures for people: nothing that is there reads as none, nothing unknown as 0."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callmeter_sinks.dashboard import charts, figures


@pytest.mark.parametrize(
    ("amount", "shown"),
    [
        (None, "–"), ("0", "0"), ("5.8074795", "5.807"), ("0.000618", "0.000618"),
        ("12345.678", "12,345.68"), ("99.999", "100"), ("0.000000000001", "0.000000000001"),
        ("-0.25", "-0.25"), ("100", "100.00"), ("0.1", "0.1"),
    ],
)  # fmt: skip
def test_money(amount: str | None, shown: str) -> None:
    assert figures.usd(None if amount is None else Decimal(amount)) == shown


@given(pico=st.integers(-(10**24), 10**24).filter(bool))
def test_money_that_is_there_never_reads_as_none(pico: int) -> None:
    amount = Decimal(pico).scaleb(-12)
    shown = figures.usd(amount)
    assert Decimal(shown.replace(",", "")) != 0
    assert abs(Decimal(shown.replace(",", "")) - amount) <= max(abs(amount) / 1000, Decimal("0.01"))
    assert Decimal(figures.exact_usd(amount)) == amount
    assert "E" not in figures.exact_usd(amount)


def test_shares_and_durations() -> None:
    assert figures.percent(0, 0) == "–"
    assert figures.percent(1, 1_000_000) == "< 0.01 %"
    assert figures.percent(1, 40) == "2.5 %"
    assert [figures.ms(value) for value in (0, 0.84, 999.9, 59_999, 3_600_000, 10**9)] == [
        "0 µs", "840 µs", "1 s", "1 m 0 s", "1 h 0 m", "11 d 13 h",
    ]  # fmt: skip
    now = datetime(2026, 1, 1, tzinfo=UTC)
    assert figures.ago(now - timedelta(seconds=90), now) == "1 m 30 s ago"
    assert figures.ago(now + timedelta(hours=3), now) == "in 3 h 0 m"
    assert figures.ago(now + timedelta(seconds=0.5), now) == "now"


def test_counts_are_shortened_only_from_ten_thousand_on() -> None:
    assert [figures.short(n) for n in (None, 0, 9_999, 12_345, 22_361_870, 3 * 10**12)] == [
        "–", "0", "9,999", "12.35 k", "22.36 M", "3 T",
    ]  # fmt: skip


def test_a_stack_is_summed_exactly_and_drawn_from_the_top() -> None:
    tenth = Decimal("0.1")
    lines = charts.stacked(
        [("a", [tenth, tenth]), ("b", [tenth, tenth]), ("c", [tenth, tenth])],
        [["x", "x"], ["y", "y"], ["z", "z"]],
    )
    assert [line.label for line in lines] == ["c", "b", "a"]
    assert lines[0].values == [0.3, 0.3]  # a sum of floats would be 0.30000000000000004
    assert lines[0].texts == ["z", "z"]
    assert charts.stacked([], []) == []
