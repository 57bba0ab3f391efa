from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callmeter.errors import UsageError
from callmeter_sinks.queries.dimensions import (
    Binding,
    Period,
    ceil,
    dimension,
    dimensions,
    filter_sql,
    later,
    segments,
    with_project,
)

MINUTE = timedelta(minutes=1)
START = datetime(2026, 3, 1, tzinfo=UTC)
STEP = {"1m": MINUTE, "1h": 60 * MINUTE, "1d": 1440 * MINUTE}
minutes = st.integers(0, 10_000).map(lambda n: START + n * MINUTE)
periods = st.tuples(st.none() | minutes, st.none() | minutes).filter(
    lambda p: None in p or p[0] < p[1]
)


@given(
    periods,
    st.sampled_from([(), ("day",), ("hour",), ("minute", "day")]),
    st.one_of(st.none(), periods.map(lambda ends: ends[0])),
)
def test_segments_are_the_period_and_never_cut_a_window(ends, windows, minutes_from) -> None:
    period = Period.of(*ends)
    parts = segments(period, windows, minutes_from=minutes_from)
    assert parts[0].since == period.since
    assert parts[-1].until == period.until
    for before, after in pairwise(parts):
        assert before.until == after.since
    for part in parts:
        for end in (part.since, part.until):
            assert end is None or (end - START) % STEP[part.suffix] == timedelta(0)
    coarsest = "1m" if "minute" in windows else "1h" if "hour" in windows else "1d"
    assert all(STEP[part.suffix] <= STEP[coarsest] for part in parts)
    assert len(parts) <= 5


def test_whole_days_are_read_from_days_alone() -> None:
    parts = segments(Period.of(START, START + timedelta(days=3)))
    assert [part.suffix for part in parts] == ["1d"]


def test_an_unaligned_period_has_edges() -> None:
    period = Period.of(START - 421 * MINUTE, START + timedelta(days=1) + 421 * MINUTE)
    assert [part.suffix for part in segments(period)] == ["1m", "1h", "1d", "1h", "1m"]


def test_a_few_hours_beside_days_are_read_from_minutes_that_are_read_anyway() -> None:
    days = (START - timedelta(days=5), START)
    for before, after, read in (
        (12 * 60 + 59, 0, ["1m", "1d"]),
        (13 * 60 + 1, 0, ["1m", "1h", "1d"]),
        (6 * 60, 6 * 60 + 59, ["1m", "1d", "1m"]),
        (6 * 60, 7 * 60 + 1, ["1h", "1d", "1h", "1m"]),
        (12 * 60, 0, ["1h", "1d"]),
    ):
        period = Period.of(days[0] - before * MINUTE, days[1] + after * MINUTE)
        first_hour = ceil(days[0] - before * MINUTE, 60 * MINUTE)
        found = sorted({part.suffix for part in segments(period, minutes_from=first_hour)})
        assert found == sorted(set(read)), (before, after)
        if "1m" in read:
            for gone in (None, first_hour + MINUTE):
                cut = {part.suffix for part in segments(period, minutes_from=gone)}
                assert "1h" in cut, (before, after)


def test_everything_is_read_from_days() -> None:
    assert [part.suffix for part in segments(Period())] == ["1d"]


def test_a_period_is_widened_to_minutes() -> None:
    period = Period.of(START + timedelta(seconds=30), START + timedelta(seconds=90)).in_minutes()
    assert (period.since, period.until) == (START, START + 2 * MINUTE)


def test_a_period_needs_zones_and_an_order() -> None:
    with pytest.raises(UsageError, match="time zone"):
        Period.of(datetime(2026, 3, 1), None)  # noqa: DTZ001 - that is the mistake
    with pytest.raises(UsageError, match="not after"):
        Period.of(START, START)


def test_the_start_of_a_call_is_bounded_by_its_hour_too() -> None:
    period = Period.of(START + 787 * MINUTE, START + timedelta(days=1))
    binding = Binding()
    assert period.sql("c.started_at", binding)[1::2] == [
        "toStartOfHour(c.started_at) >= toDateTime({p1:UInt32}, 'UTC')",
        "toStartOfHour(c.started_at) < toDateTime({p3:UInt32}, 'UTC')",
    ]
    hours = [datetime.fromtimestamp(binding.values[name], UTC) for name in ("p1", "p3")]
    assert hours == [START + timedelta(hours=13), START + timedelta(days=1)]
    assert len(period.sql("log_ts", Binding())) == 2
    far = Period.of(datetime(1960, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC))
    assert len(far.sql("started_at", Binding())) == 2


def test_what_retention_left() -> None:
    floor = START + timedelta(days=1)
    kept = {"calls": floor, "envelopes": START}
    assert later(Period(), kept, ["metrics"]) == (Period(), None)
    assert later(Period(), kept, ["calls", "envelopes"]) == (Period(floor, None), floor)
    assert later(Period(floor, None), kept, ["calls"]) == (Period(floor, None), None)


@pytest.mark.parametrize(
    "name",
    ["", "nope", "cost; DROP TABLE calls", "tag:", ":x", "model`", "user'", "Model", "tag", "k0"],
)
def test_unknown_dimensions_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match="no dimension"):
        dimension(name)


@pytest.mark.parametrize("key", ["team", "'] OR 1=1 --", "{p0:String}", "a:b", "`"])
def test_a_key_is_bound_whatever_it_is(key: str) -> None:
    binding = Binding()
    assert dimension(f"tag:{key}").sql(binding) == "tags[{p0:String}]"
    assert binding.values == {"p0": key}


def test_filters_are_bound() -> None:
    binding = Binding()
    said = filter_sql({"model": "a' OR '1'='1", "tag:x": ["b", "c"]}, binding)
    assert said == ["`model` IN {p0:Array(String)}", "tags[{p1:String}] IN {p2:Array(String)}"]
    assert binding.values == {"p0": ["a' OR '1'='1"], "p1": "x", "p2": ["b", "c"]}


def test_filters_that_make_no_sense() -> None:
    with pytest.raises(UsageError, match="window"):
        filter_sql({"hour": "x"}, Binding())
    with pytest.raises(UsageError, match="not text"):
        filter_sql({"model": [1]}, Binding())  # type: ignore[list-item]
    with pytest.raises(UsageError, match="twice"):
        with_project({"project": "a"}, "b")
    with pytest.raises(UsageError, match="twice"):
        dimensions(["model", "model"])
