"""What queued events weigh: estimates, from which the queue's length limit follows.

The shipper's is a running mean over what it encodes, nearly free. A caller's thread looks at a few
of the newest events itself each time the queue has doubled, so that a sudden run of long texts is
seen although the shipper is busy. tests/unit/sdk/test_weight.py holds both against tracemalloc.
"""

from __future__ import annotations

from collections import deque
from typing import Any

#: A Call with its slots, clocks and id, and an entry of its attributes without the text.
CALL_BYTES = 400
FIELD_BYTES = 30
#: A queued tuple with its numbers.
TUPLE_BYTES = 120
#: Before anything was seen.
FIRST_GUESS = 1_024
#: How fast the mean follows: up at once, down slowly.
RISE, FALL = 0.2, 0.02
#: How many of the newest events a caller looks at.
SAMPLE = 16


class Weigher:
    """A running estimate of the bytes that one queued event keeps alive."""

    __slots__ = ("_mean",)

    def __init__(self) -> None:
        self._mean = float(FIRST_GUESS)

    def event_bytes(self) -> float:
        """Bytes of memory an event in the queue is expected to take."""
        return self._mean

    def saw(self, item: Any, line_bytes: int) -> None:
        """An item was encoded into a line of so many bytes: its texts are in both."""
        if type(item) is tuple:
            size = TUPLE_BYTES + line_bytes
        else:
            fields = len(item.fields) + (0 if item.later is None else len(item.later) + 4)
            size = CALL_BYTES + FIELD_BYTES * fields + line_bytes
        mean = self._mean
        self._mean = mean + (size - mean) * (RISE if size > mean else FALL)


def newest_bytes(queue: deque[Any]) -> float:
    """The mean weight of the newest events in the queue; other threads may change it meanwhile."""
    total = seen = 0
    for back in range(1, SAMPLE + 1):
        try:
            item = queue[-back]
        except IndexError:
            break
        seen += 1
        if type(item) is tuple:
            # Its numbers are in TUPLE_BYTES, its anchor is shared by many.
            total += TUPLE_BYTES + sum(_texts(v) for v in item[1:] if isinstance(v, str | dict))
        else:
            total += CALL_BYTES + FIELD_BYTES * len(item.fields)
            total += _texts(item.fields) + _texts(item.later) + _texts(item.extra)
    return total / seen if seen else 0.0


def _texts(value: Any, depth: int = 6) -> int:
    """Bytes of the texts in a frozen value, and a little for each number."""
    if isinstance(value, str):
        return len(value)
    if depth and isinstance(value, dict):
        return sum(64 + _texts(v, depth - 1) for v in list(value.values()))
    if depth and isinstance(value, list | tuple):
        return sum(16 + _texts(v, depth - 1) for v in value)
    return 32
