"""What queued events weigh: an estimate cheap enough to be made for every one of them.

Measured against ``tracemalloc`` in tests/unit/sdk/test_weight.py. The limit of the queue follows
from it, so it must not be low for long: it rises at once and falls slowly.
"""

from __future__ import annotations

from typing import Any

#: A Call with its slots, clocks and ids; a dict of attributes; one attribute of a short text.
CALL_BYTES = 620
FIELD_BYTES = 56
#: A queued tuple with its numbers.
TUPLE_BYTES = 330
#: Before anything was seen.
FIRST_GUESS = 2_048


class Weigher:
    """A running estimate of the bytes one queued event keeps alive."""

    __slots__ = ("_mean",)

    def __init__(self) -> None:
        self._mean = float(FIRST_GUESS)

    def event_bytes(self) -> float:
        """Bytes of memory an event in the queue is expected to take."""
        return self._mean

    def saw(self, item: Any, line_bytes: int) -> None:
        """An item was encoded into a line of so many bytes: long texts are in both."""
        if type(item) is tuple:
            size = TUPLE_BYTES + line_bytes
        else:
            size = CALL_BYTES + FIELD_BYTES * len(item.fields) + line_bytes
        mean = self._mean
        self._mean = mean + (size - mean) * (0.25 if size > mean else 0.001)
