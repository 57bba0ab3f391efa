"""The histogram: exact buckets for every integer, quantiles within the stated error."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callmeter.schema import histogram
from callmeter.schema.histogram import bucket, count_buckets, midpoint_us, quantile_us

#: (2**(1/32) - 1) / (2**(1/32) + 1), of the harmonic midpoint to either edge: 1.083 %.
ERROR = 0.0108301


def exact_bucket(us):
    """By integers alone: the b with 2**b <= us**32 < 2**(b+1)."""
    if us <= 1:
        return 0
    b = (us**32).bit_length() - 1
    assert 2**b <= us**32 < 2 ** (b + 1)
    return b


def test_every_small_integer_is_exact():
    assert all(bucket(us) == exact_bucket(us) for us in range(50_000))


@given(st.integers(0, 2**70))
def test_any_integer_is_exact(us):
    assert bucket(us) == exact_bucket(us)


def test_the_integers_around_every_edge_are_exact():
    for b in range(45 * 32):
        edge = math.ceil(2 ** (b / 32))
        for us in range(max(0, edge - 2), edge + 3):
            assert bucket(us) == exact_bucket(us)


@given(st.lists(st.integers(0, 2**44), max_size=50))
def test_counting_is_bucketing_each(durations):
    counts = count_buckets(durations)
    assert sum(counts.values()) == len(durations)
    for index in counts:
        assert counts[index] == [exact_bucket(us) for us in durations].count(index)


def test_counting_the_integers_around_every_edge_is_bucketing_each():
    """``count_buckets`` looks at no edge where it knows that the logarithm need not be helped."""
    for b in range(45 * 32):
        edge = math.ceil(2 ** (b / 32))
        for us in range(max(0, edge - 2), edge + 3):
            assert count_buckets([us]) == {exact_bucket(us): 1}


def test_a_logarithm_that_errs_at_an_edge_is_not_relied_upon(monkeypatch):
    """Some library's log2 may put the first integer of a bucket into the one before."""
    errs = 1_000_003
    first = next(us for us in range(errs, 2 * errs) if exact_bucket(us) > exact_bucket(us - 1))
    monkeypatch.setattr(
        histogram, "log2", lambda us: math.log2(us - 1) if us == first else math.log2(us)
    )
    monkeypatch.setattr(histogram, "bucket", exact_bucket)
    monkeypatch.setattr(histogram, "_plain_buckets", histogram._plain_buckets.__wrapped__)
    assert count_buckets([first, 7]) == {exact_bucket(first): 1, exact_bucket(7): 1}


@given(st.integers(1, 2**44))
def test_the_midpoint_is_within_the_stated_error(us):
    assert abs(midpoint_us(bucket(us)) / us - 1) <= ERROR


@pytest.mark.parametrize("q", [0.0, 0.01, 0.5, 0.9, 0.95, 0.99, 0.999, 1.0])
def test_quantiles_are_within_the_stated_error(q):
    rng = random.Random(7)
    durations = sorted(int(rng.lognormvariate(13, 1)) for _ in range(10_001))
    exact = durations[min(len(durations) - 1, int(q * len(durations)))]
    assert quantile_us(count_buckets(durations), q) == pytest.approx(exact, rel=ERROR)


def test_an_empty_histogram_has_no_quantile():
    assert quantile_us({}, 0.5) is None


@pytest.mark.parametrize(("q", "index"), [(0.0, 0), (0.5, 0), (0.51, 320), (1.0, 320)])
def test_the_rank_is_clickhouse_s_where_it_falls_between_two(q, index):
    assert quantile_us({0: 13, 320: 13}, q) == midpoint_us(index)
