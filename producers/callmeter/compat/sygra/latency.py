"""Statistics of latencies as the metadata document shows them."""

from __future__ import annotations

import math
from collections.abc import Sequence

NAMES = ("min", "max", "mean", "median", "std_dev", "p50", "p95", "p99")


def seconds(us: float, digits: int = 3) -> float:
    """Microseconds as seconds, rounded."""
    return round(us / 1_000_000, digits)


def latency_statistics(samples_us: Sequence[int]) -> dict[str, float]:
    """min, max, mean, median, std_dev, p50, p95 and p99 in seconds with 3 decimals.

    ``samples_us`` are microseconds in any order. Without samples everything is 0.0. Quantile p lies
    at position p·(n+1), between its neighbours (method 6 of Hyndman and Fan, 1996, which Python's
    ``statistics.quantiles`` calls exclusive), never outside of what was measured. ``std_dev`` is
    that of a sample; of one alone it is 0.0.
    """
    n = len(samples_us)
    if n == 0:
        return dict.fromkeys(NAMES, 0.0)
    ordered = sorted(samples_us)
    mean = sum(ordered) / n
    spread = math.fsum((x - mean) ** 2 for x in ordered)
    median = _quantile(ordered, 0.5)
    figures = (
        ordered[0],
        ordered[-1],
        mean,
        median,
        math.sqrt(spread / (n - 1)) if n > 1 else 0.0,
        median,
        _quantile(ordered, 0.95),
        _quantile(ordered, 0.99),
    )
    return {name: seconds(us) for name, us in zip(NAMES, figures, strict=True)}


def _quantile(ordered: Sequence[int], p: float) -> float:
    n = len(ordered)
    at = min(max(p * (n + 1), 1.0), float(n))
    below = min(int(at), n - 1)
    if below == 0:  # one sample
        return float(ordered[0])
    left, right = ordered[below - 1], ordered[below]
    return left + (at - below) * (right - left)
