"""Budget definitions: what is refused, thresholds in numbers, what an edit moves, windows."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
import pytest

from callmeter.errors import DataError, NewerSchemaError, UsageError
from callmeter.schema.budgets import (
    Budget,
    Slo,
    check_budget,
    decode_budget,
    describe_limit,
    encode_budget,
    levels,
    next_version,
)
from callmeter.schema.spend import spend_partition
from callmeter.schema.status import decode_status
from callmeter.schema.windows import window_at

USD = 10**12


def made(**fields) -> Budget:
    return Budget(**{"id": "team", "limit_pico": str(5 * USD)} | fields)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"limit_pico": "-1"}, "must be above 0"),
        ({"limit_pico": "0"}, "must be above 0"),
        ({"limit_pico": "five"}, "no amount"),
        ({"limit_tokens": -5}, "must be above 0"),
        ({"window": "year"}, "unknown window 'year': one of hour, day, month, session"),
        ({"scope": {"colour": ["red"]}}, "unknown scope 'colour'"),
        ({"scope": {"model": []}}, "1 to 100 values"),
        ({"scope": {"tag:": ["red"]}}, "unknown scope 'tag:'"),
        ({"per": "colour"}, "unknown per 'colour'"),
        ({"window": "session", "per": "user"}, "per session"),
        ({"window": "session"}, "per session"),
        ({"id": "a|b"}, "a name is"),
        ({"id": "position"}, "a name is"),
        ({"id": ""}, "a name is"),
        ({"thresholds": ["80"] * 2}, "stands twice"),
        ({"thresholds": ["eighty"]}, "'eighty' is none"),
        ({"thresholds": ["-5%"]}, "'-5%' is none"),
        ({"thresholds": ["0%"]}, "must be above 0"),
        ({"thresholds": ["0.00"]}, "must be above 0"),
        ({"limit_pico": msgspec.UNSET}, "has no limit"),
        ({"slo": Slo(measure="error_rate", max_ppm=5)}, "make two rules"),
        ({"version": 1, "basis": 2}, "no count"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(fields, says):
    with pytest.raises(UsageError) as caught:
        check_budget(made(**fields))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(DataError):
        decode_budget(encode_budget(made(**fields)))


@pytest.mark.parametrize(
    ("slo", "says"),
    [
        (Slo(measure="error_rate", max_ppm=10**6), "below 100 %"),
        (Slo(measure="latency"), "latency must be above 0"),
        (Slo(measure="latency", max_us=1, quantile_ppm=0), "quantile"),
        (Slo(measure="latency", max_us=1, min_calls=0), "min_calls"),
    ],
)
def test_objectives_that_make_no_sense_are_refused(slo, says):
    with pytest.raises(UsageError, match=says):
        check_budget(Budget(id="slo", slo=slo))
    good = Slo(measure="latency", max_us=1)
    with pytest.raises(UsageError, match="window of time"):
        check_budget(Budget(id="slo", slo=good, window="session", per="session"))


def test_thresholds_in_numbers_are_rounded_up():
    both = made(limit_pico="3", limit_tokens=1000, thresholds=["50%", "33.3333%", "0.000000000002"])
    assert [(level.measure, level.text, level.at) for level in levels(both)] == [
        ("cost", "33.3333%", 1),
        ("cost", "0.000000000002", 2),
        ("cost", "50%", 2),
        ("tokens", "33.3333%", 334),
        ("tokens", "50%", 500),
    ]
    assert [level.at for level in levels(made(thresholds=["4.50", "7 tokens", "4 USD"]))] == [
        4 * USD, 45 * 10**11, 7,
    ]  # fmt: skip


def test_an_edit_moves_the_counters_it_should():
    first = next_version(None, made(), 100)
    assert (first.version, first.basis, first.terms, first.terms_us) == (1, 1, 1, 100)
    noted = next_version(first, msgspec.structs.replace(first, note="hello"), 200)
    assert (noted.version, noted.basis, noted.terms, noted.terms_us) == (2, 1, 1, 100)
    raised = next_version(noted, msgspec.structs.replace(noted, limit_pico="7"), 300)
    assert (raised.version, raised.basis, raised.terms, raised.terms_us) == (3, 1, 3, 300)
    scoped = next_version(raised, msgspec.structs.replace(raised, scope={"model": ["x"]}), 400)
    assert (scoped.version, scoped.basis, scoped.terms) == (4, 4, 4)
    gone = next_version(scoped, msgspec.structs.replace(scoped, state="deleted"), 500)
    again = next_version(gone, msgspec.structs.replace(gone, state="active"), 600)
    assert (again.version, again.basis, again.terms) == (6, 6, 6)


def test_a_definition_survives_the_topic_and_a_newer_one_is_refused():
    whole = made(scope={"tag:team": ["a", "b*"]}, per="user", action="stop", note="ünï")
    assert decode_budget(encode_budget(whole)) == whole
    with pytest.raises(NewerSchemaError):
        decode_budget(encode_budget(made(v=2)))
    with pytest.raises(DataError, match="cannot be read"):
        decode_budget(b"{")
    with pytest.raises(DataError, match="cannot be read"):
        decode_status(b"[]")


def test_limits_for_people():
    assert describe_limit(made(limit_tokens=7)) == "5 USD and 7 tokens"
    rate = Slo(measure="error_rate", max_ppm=25_000)
    assert describe_limit(Budget(id="e", slo=rate)) == "errors at most 2.5 %"
    slow = Slo(measure="latency", max_us=1_500_000)
    assert describe_limit(Budget(id="l", slo=slow)) == "p95 latency at most 1.5 s"


def us(*when: int) -> int:
    return int(datetime(*when, tzinfo=UTC).timestamp()) * 1_000_000


def test_windows_are_calendar_hours_days_and_months_in_utc():
    at = us(2024, 2, 29, 23, 59, 59) + 999_999
    assert window_at("hour", at) == (us(2024, 2, 29, 23), us(2024, 3, 1))
    assert window_at("day", at) == (us(2024, 2, 29), us(2024, 3, 1))
    assert window_at("month", at) == (us(2024, 2, 1), us(2024, 3, 1))
    assert window_at("month", us(2024, 12, 31)) == (us(2024, 12, 1), us(2025, 1, 1))
    assert window_at("session", at) == (0, 0)
    assert window_at("hour", at + 1) == (us(2024, 3, 1), us(2024, 3, 1, 1))
    with pytest.raises(ValueError, match="unknown window 'year'"):
        window_at("year", at)


def test_entities_spread_over_partitions():
    places = {spend_partition("team", f"user-{i}", 8) for i in range(200)}
    assert places == set(range(8))
    assert spend_partition("team", "user-1", 8) == spend_partition("team", "user-1", 8)
