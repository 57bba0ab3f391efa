"""The bucket of a duration as SQL, decided in integers as the meter does.

``callmeter.schema.histogram`` has the formula. log2 of a float may fall on either side of an edge:
one step either way puts it right.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from functools import cache

from callmeter.schema.histogram import PER_DOUBLING
from callmeter_sinks.queries.dimensions import Binding

#: The bucket of ``us``, one off at most: a source of ``bucket_sql`` selects it as ``about``.
ABOUT_SQL = f"toInt32(floor(log2(greatest(us, 1)) * {PER_DOUBLING}))"


def bucket_sql(binding: Binding) -> str:
    """The bucket of a row with ``us``, a duration in microseconds, and ``about``."""
    at = binding.add(bucket_edges(), "Array(UInt64)")
    return f"about + (us >= {at}[about + 2]) - (greatest(us, 1) < {at}[about + 1])"


@cache
def bucket_edges() -> Sequence[int]:
    """At ``b`` the least duration of bucket ``b``: the least n with n**32 >= 2**b."""
    durations = range(2**63 - 1)
    found = [
        bisect_left(durations, 1 << b, key=lambda n: n**PER_DOUBLING)
        for b in range(63 * PER_DOUBLING)
    ]
    return [*found, 2**63, 2**63 + 1]
