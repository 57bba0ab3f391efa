"""Base-2 exponential histogram of scale 5: 32 buckets per doubling (design 7).

The bucket of a duration is ``floor(log2(max(us, 1)) * 32)``. Floating-point ``log2`` may fall on
either side of a bucket's edge and libraries differ there, so edges are decided in integers: bucket
``b`` holds ``us`` iff ``2**b <= us**32 < 2**(b+1)``, that is ``b = (us**32).bit_length() - 1``.
The meter alone computes buckets; ClickHouse only sums them. A quantile read as the bucket's
harmonic midpoint is off by at most 1.083 %.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import ceil, log2

SCALE = 5
PER_DOUBLING = 1 << SCALE

#: ``log2(us) * 32`` is off by less than 1e-11 for any ``us`` below 2**1000: a value further than
#: this from an edge needs no integer power, which costs ten times as much.
_EDGE = 1e-9


def bucket(us: int) -> int:
    """The bucket of a duration in microseconds; 0 and 1 share bucket 0. Exact for every integer."""
    if us <= 1:
        return 0
    exact = log2(us) * PER_DOUBLING
    index = int(exact)
    if _EDGE < exact - index < 1 - _EDGE:
        return index
    return int(us**PER_DOUBLING).bit_length() - 1


def count_buckets(durations_us: Iterable[int]) -> dict[int, int]:
    """A histogram of durations: bucket to count, what ``bucket`` says of each."""
    counts: dict[int, int] = {}
    for us in durations_us:
        # ``bucket`` inlined: the meter does this for every latency it sees.
        exact = log2(us) * PER_DOUBLING if us > 1 else 0.0
        index = int(exact)
        if not _EDGE < exact - index < 1 - _EDGE:
            index = bucket(us)
        counts[index] = counts.get(index, 0) + 1
    return counts


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
