"""What waits for delivery: one metric, annotation or status, and ids that never repeat."""

from __future__ import annotations

import itertools
import os
import time
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

#: What a line holds beside the texts that are counted one by one.
LINE_BYTES = 400


class Kind(StrEnum):
    """Kinds of items, as they stand in a JSONL file."""

    METRIC = "metric"
    ANNOTATION = "annotation"
    STATUS = "status"


@dataclass(slots=True, eq=False)
class Item:
    """``at_us`` is when it happened; ``size`` bounds its bytes on the wire; ``order`` is the
    queue's.
    """

    kind: Kind
    at_us: int
    event_id: str
    body: dict[str, Any]
    size: int = LINE_BYTES
    order: int = 0


def now_us() -> int:
    """Microseconds since the epoch."""
    return time.time_ns() // 1000


class EventIds:
    """Ids of events: 96 random bits for each process, then a count."""

    def __init__(self) -> None:
        self._renew()

    def _renew(self) -> None:
        self._pid = os.getpid()
        self._prefix = f"{os.urandom(12).hex()}-"
        self._next = itertools.count().__next__

    def new(self) -> str:
        """A new id; unique across threads, processes and forks."""
        if self._pid != os.getpid():
            self._renew()
        return f"{self._prefix}{self._next():x}"
