"""One experiment's items between the caller's thread and delivery: bounded, in order."""

from __future__ import annotations

import itertools
import threading
from collections import Counter, deque
from collections.abc import Sequence

from callmeter.compat.syvain.items import Item, Kind


class ItemQueue:
    """Metrics and annotations up to a limit; statuses, of which there are few, beside it.

    When it is full the oldest metric goes; annotations, which somebody wrote, go only when there is
    no metric left. A final status waits apart: it is delivered once nothing else waits.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        # A signal handler may run on a thread that is inside.
        self._lock = threading.RLock()
        self._waiting: dict[Kind, deque[Item]] = {kind: deque() for kind in Kind}
        self._final: Item | None = None
        self._order = itertools.count(1).__next__

    def put(self, item: Item) -> Counter[Kind]:
        """Append; what had to go for it, by kind."""
        dropped: Counter[Kind] = Counter()
        with self._lock:
            item.order = self._order()
            self._waiting[item.kind].append(item)
            metrics, notes = self._waiting[Kind.METRIC], self._waiting[Kind.ANNOTATION]
            while len(metrics) + len(notes) > self._limit:
                oldest = (metrics or notes).popleft()
                dropped[oldest.kind] += 1
        return dropped

    def put_final(self, item: Item) -> None:
        """The status that ends the run; it takes the place of one that still waits."""
        with self._lock:
            self._final = item

    def settle_final(self) -> None:
        """A new run begins: a final status that still waits takes its place in the order."""
        with self._lock:
            if self._final is not None:
                self._final.order = self._order()
                self._waiting[Kind.STATUS].append(self._final)
                self._final = None

    def has_final(self) -> bool:
        return self._final is not None

    def mark(self) -> int:
        """What is queued from now on has a higher order."""
        with self._lock:
            return self._order()

    def take(self, most: int, most_bytes: int, before: int) -> list[Item]:
        """The oldest items, in order, of those queued before the mark; a lone item always fits."""
        batch: list[Item] = []
        size = 0
        with self._lock:
            while len(batch) < most:
                heads = [waiting for waiting in self._waiting.values() if waiting]
                if not heads:
                    if self._final is not None:
                        batch.append(self._final)
                        self._final = None
                    break
                oldest = min(heads, key=_order_of_head)
                size += oldest[0].size
                if oldest[0].order > before or (batch and size > most_bytes):
                    break
                batch.append(oldest.popleft())
        return batch

    def clear(self) -> None:
        """Forget everything: in a forked child it is the parent's."""
        self._lock = threading.RLock()
        for waiting in self._waiting.values():
            waiting.clear()
        self._final = None

    def counts(self) -> Counter[Kind]:
        """What waits, by kind."""
        with self._lock:
            counts = Counter({kind: len(waiting) for kind, waiting in self._waiting.items()})
            counts[Kind.STATUS] += self._final is not None
        return +counts


def _order_of_head(waiting: Sequence[Item]) -> int:
    return waiting[0].order
