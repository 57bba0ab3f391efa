"""Base-2 exponential histogram of scale 5: 32 buckets per doubling (design 7).

The bucket of a duration is ``floor(log2(max(us, 1)) * 32)``. Floating-point ``log2`` may fall on
either side of a bucket's edge and libraries differ there, so edges are decided in integers: bucket
``b`` holds ``us`` iff ``2**b <= us**32 < 2**(b+1)``, that is ``b = (us**32).bit_length() - 1``.
The meter alone computes buckets; ClickHouse only sums them. A quantile read as the bucket's
harmonic midpoint is off by at most 1.083 %.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import cache
from math import ceil, floor, log2

SCALE = 5
PER_DOUBLING = 1 << SCALE

#: ``log2(us) * 32`` is off by less than 1e-11 for any ``us`` below 2**1000: a value further than
#: this from an edge needs no integer power, which costs ten times as much.
_EDGE = 1e-9
#: 2**40 µs are twelve days: what lasts longer is rare enough for the integers.
_PLAIN_DOUBLINGS = 40


def bucket(us: int) -> int:
    """The bucket of a duration in microseconds; 0 and 1 share bucket 0. Exact for every integer."""
    if us <= 1:
        return 0
    exact = log2(us) * PER_DOUBLING
    index = int(exact)
    if _EDGE < exact - index < 1 - _EDGE:
        return index
    return int(us**PER_DOUBLING).bit_length() - 1


def count_buckets(durations_us: Collection[int]) -> dict[int, int]:
    """A histogram of durations: bucket to count, what ``bucket`` says of each."""
    counts: dict[int, int] = {}
    try:
        # The meter does this for every latency it sees: no call of a function of ours, no edge.
        for us in durations_us:
            index = floor(log2(us) * 32.0)
            counts[index] = counts.get(index, 0) + 1
    except ValueError:  # a logarithm of 0
        return _count_exactly(durations_us)
    if counts and max(counts) >= _plain_buckets():
        return _count_exactly(durations_us)
    return counts


def _count_exactly(durations_us: Collection[int]) -> dict[int, int]:
    counts: dict[int, int] = {}
    for us in durations_us:
        index = bucket(us)
        counts[index] = counts.get(index, 0) + 1
    return counts


@cache
def _plain_buckets() -> int:
    """How many of the first buckets ``log2`` of this machine tells apart by itself: 40 doublings.

    Below 2**40 a logarithm's error is less than a fortieth of what two neighbouring integers are
    apart, so only the two integers at an edge can fall on its wrong side: these are tried, all.
    """
    for index in range(1, _PLAIN_DOUBLINGS * PER_DOUBLING):
        edge = ceil(2 ** (index / PER_DOUBLING))
        for us in range(max(1, edge - 2), edge + 2):
            if floor(log2(us) * 32.0) != int(us**PER_DOUBLING).bit_length() - 1:
                return index - 1
    return _PLAIN_DOUBLINGS * PER_DOUBLING


def midpoint_us(index: int) -> float:
    """The value that stands for a bucket: the harmonic midpoint, of equal error both ways."""
    low: float = 2.0 ** (index / PER_DOUBLING)
    high: float = 2.0 ** ((index + 1) / PER_DOUBLING)
    return 2 * low * high / (low + high)


def quantile_us(histogram: Mapping[int, int], q: float) -> float | None:
    """The q-quantile (0..1) of a bucket-to-count map in microseconds; None if it is empty.

    The rank is the nearest-rank one of ClickHouse's ``quantileExactWeighted``: the first bucket
    whose cumulative count reaches ``ceil(q * total)``.
    """
    total = sum(histogram.values())
    if total <= 0:
        return None
    rank = ceil(total * q)
    seen = 0
    index = 0
    for index in sorted(histogram):
        seen += histogram[index]
        if seen >= rank:
            break
    return midpoint_us(index)
