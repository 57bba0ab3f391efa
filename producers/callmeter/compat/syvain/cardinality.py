"""Keeps a metric from growing into more series than anybody can look at."""

from __future__ import annotations

import threading
from collections.abc import Mapping

#: Series of one metric in one experiment, and metrics whose series are told apart.
MAX_SERIES = 4096
MAX_METRICS = 4096
#: The labels of everything beyond.
OVERFLOW: Mapping[str, str] = {"callmeter.overflow": "true"}


class CardinalityGuard:
    """One experiment's series by metric, as hashes: 64 bits each, whatever the labels hold.

    Two label sets that share a hash count as one series, which errs on the side of letting through.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: dict[str, set[int]] = {}
        self._told: set[str] = set()

    def admits(self, name: str, labels: Mapping[str, str]) -> bool:
        """Whether the series is one of the first 4096 of its metric."""
        if not labels:
            return True
        series = hash(frozenset(labels.items()))
        with self._lock:
            seen = self._seen.get(name)
            if seen is None:
                if len(self._seen) >= MAX_METRICS:
                    return False
                seen = self._seen[name] = set()
            if series in seen:
                return True
            if len(seen) >= MAX_SERIES:
                return False
            seen.add(series)
            return True

    def first_time(self, name: str) -> bool:
        """Whether the metric's overflow is to be told: once each, and bounded."""
        with self._lock:
            if name in self._told or len(self._told) >= MAX_METRICS:
                return False
            self._told.add(name)
            return True

    def series(self) -> int:
        """How many series are held."""
        with self._lock:
            return sum(len(seen) for seen in self._seen.values())
