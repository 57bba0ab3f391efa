"""When the next checkpoint is due: under load at once, in a trickle later, after slow ones too."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from callmeter_processors.runtime.pace import Pace


def settled(records: int, took_s: float) -> float:
    """The rest after many batches alike."""
    pace = Pace(gather_s=0.1, full=500)
    return [pace.rest_s(records, took_s) for _ in range(100)][-1]


def test_under_load_there_is_no_rest():
    assert settled(500, 0.3) == 0
    assert settled(500, 30.0) == 0


def test_who_is_behind_does_not_rest_however_slow_writing_is():
    pace = Pace(gather_s=0.1, full=500)
    assert pace.rest_s(300, 5.0, behind=2000) == 0
    assert pace.rest_s(300, 5.0, behind=20) > 0.5


def test_a_trickle_is_written_four_times_a_second():
    assert abs(settled(1, 0.005) - 0.15) < 1e-9


def test_fast_transactions_are_not_waited_for():
    assert settled(50, 0.02) == 0


def test_writing_takes_a_third_of_the_time_at_most():
    for took_s in (0.06, 0.1, 0.3):
        rest_s = settled(50, took_s)
        assert abs(took_s / (took_s + rest_s + 0.1) - 1 / 3) < 0.001


def test_no_rest_is_longer_than_a_second():
    assert settled(50, 20.0) == 1.0
    assert settled(1, 20.0) == 1.0


def test_one_slow_transaction_is_no_trend():
    pace = Pace(gather_s=0.1, full=500)
    for _ in range(100):
        pace.rest_s(50, 0.02)
    assert pace.rest_s(50, 0.2) < 0.1


@given(st.lists(st.tuples(st.integers(1, 500), st.floats(0, 100)), min_size=1, max_size=50))
def test_rests_stay_within_their_bounds(batches):
    pace = Pace(gather_s=0.1, full=500)
    for records, took_s in batches:
        assert 0 <= pace.rest_s(records, took_s) <= 1.0
