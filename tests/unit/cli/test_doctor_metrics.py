"""What the doctor serves: the worst of each piece, what costly looks found, and honest levels."""

from __future__ import annotations

import pytest

from callmeter.cli.doctor_finding import THOROUGH, Figure, Finding, State, looked
from callmeter.cli.doctor_metrics import METRICS, PREFIX, Ward
from callmeter.cli.doctor_store import skew
from callmeter.errors import UnreachableError


def finding(piece: str, state: State, *figures: Figure) -> Finding:
    return Finding(piece, state, "", "operations.md", figures)


def served(ward: Ward) -> dict[tuple[str, ...], float]:
    return {
        (sample.name.removeprefix(f"{PREFIX}_"), *sample.labels.values()): sample.value
        for family in ward.collect()
        for sample in family.samples
    }


def test_the_worst_of_a_piece_counts() -> None:
    ward = Ward()
    ward.found(
        [
            finding("clock", State.OK, Figure("clock_ahead_seconds", 0.1, {"of": "store"})),
            finding("clock", State.NOTICE, Figure("clock_ahead_seconds", 9.0, {"of": "collector"})),
            finding("store", State.WRONG),
        ],
        0.5,
    )
    found = served(ward)
    assert found["state", "clock"] == 1
    assert found["state", "store"] == 2
    assert found["clock_ahead_seconds", "collector"] == 9.0
    assert found["look_seconds",] == 0.5


def test_what_only_thorough_looks_ask_for_stays_and_the_rest_goes() -> None:
    ward = Ward()
    lag = Figure("group_lag_records", 7, {"group": "meter"})
    gaps = finding("gaps", State.NOTICE, Figure("missing_envelopes", 3))
    ward.found([finding("meter", State.OK, lag), gaps], 0.1)
    # Kafka is away now: its old lag would be a lie, while nobody asked for gaps.
    ward.found([finding("kafka", State.WRONG)], 0.1)
    found = served(ward)
    assert ("group_lag_records", "meter") not in found
    assert found["state", "kafka"] == 2
    assert found["missing_envelopes",] == 3
    assert "gaps" in THOROUGH


def test_verify_is_told_with_its_time() -> None:
    ward = Ward()
    assert ("verify_equal",) not in served(ward)
    ward.verified(equal=False, unverifiable=2, took_s=1.5)
    found = served(ward)
    assert found["verify_equal",] == 0
    assert found["verify_unverifiable",] == 2
    assert found["verify_timestamp_seconds",] > 1.7e9


def test_every_name_is_described_even_before_the_first_look() -> None:
    assert {family.name for family in Ward().describe()} == {f"{PREFIX}_{n}" for n in METRICS}


@pytest.mark.parametrize(
    ("ahead_s", "state", "words"),
    [
        (0.4, State.OK, "0.4 s ahead of"),
        (-1.9, State.OK, "1.9 s behind"),
        (-2.0, State.NOTICE, "2.0 s behind"),
        (61.0, State.WRONG, "61.0 s ahead of"),
    ],
)
def test_clocks(ahead_s: float, state: State, words: str) -> None:
    found = skew("store", ahead_s)
    assert found.state is state
    assert words in found.detail


def test_an_error_is_a_finding() -> None:
    def look() -> Finding:
        raise UnreachableError("nobody home")

    (found,) = looked("store", "operations.md#store", look)
    assert found.state is State.WRONG
    assert found.detail == "nobody home"
    assert found.to_json()["guide"] == "docs/guides/operations.md#store"
