"""What a flush says, and the books it is read from."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass

from callmeter.compat.syvain.errors import MetricsCollectorError
from callmeter.compat.syvain.items import Item, Kind

_SHOWN_ERRORS = 3


@dataclass(frozen=True)
class FlushResult:
    """What became of metrics, annotations and statuses.

    ``delivered_*``, ``dropped_*`` and ``permanent_failures`` count since the last result, what the
    background did in between included; ``pending_*`` are still to be delivered;
    ``retryable_failures`` are experiments whose delivery failed in this flush and goes on later.
    """

    delivered_metrics: int = 0
    delivered_annotations: int = 0
    delivered_statuses: int = 0
    dropped_metrics: int = 0
    dropped_annotations: int = 0
    dropped_statuses: int = 0
    retryable_failures: int = 0
    permanent_failures: int = 0
    pending_metrics: int = 0
    pending_annotations: int = 0
    pending_statuses: int = 0
    errors: tuple[str, ...] = ()

    @property
    def pending(self) -> int:
        """Everything that is still to be delivered."""
        return self.pending_metrics + self.pending_annotations + self.pending_statuses

    @property
    def dropped(self) -> int:
        """Everything that is lost."""
        return self.dropped_metrics + self.dropped_annotations + self.dropped_statuses

    @property
    def ok(self) -> bool:
        """Nothing pending, nothing failed and nothing lost."""
        failures = self.retryable_failures + self.permanent_failures
        return failures + self.pending + self.dropped == 0

    def counts(self) -> str:
        """The counts that are not good news, for an error or a log line."""
        return (
            f"(pending_metrics={self.pending_metrics}, "
            f"pending_annotations={self.pending_annotations}, "
            f"pending_statuses={self.pending_statuses}, "
            f"dropped_metrics={self.dropped_metrics}, "
            f"dropped_annotations={self.dropped_annotations}, "
            f"dropped_statuses={self.dropped_statuses}, "
            f"retryable_failures={self.retryable_failures}, "
            f"permanent_failures={self.permanent_failures})"
            + "".join(f"; {error}" for error in self.errors[:_SHOWN_ERRORS])
        )

    def raise_for_failure(self) -> None:
        """``MetricsCollectorError`` with the counts unless all is well."""
        if not self.ok:
            raise MetricsCollectorError(f"metrics flush incomplete {self.counts()}")


class Books:
    """A collector's totals by kind. Thread-safe; totals never go down."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._delivered: Counter[Kind] = Counter()
        self._dropped: Counter[Kind] = Counter()
        self._permanent = 0
        self._errors: deque[str] = deque(maxlen=_SHOWN_ERRORS)
        self._told_delivered: Counter[Kind] = Counter()
        self._told_permanent = 0
        #: What flush has said of drops, and what flush_or_raise has raised for: two marks, so that
        #: a drop that a plain flush has told of still fails the caller who asks for an error.
        self._told: dict[bool, Counter[Kind]] = {False: Counter(), True: Counter()}

    def delivered(self, items: Iterable[Item]) -> None:
        with self._lock:
            self._delivered.update(item.kind for item in items)

    def dropped(self, kinds: Counter[Kind]) -> None:
        with self._lock:
            self._dropped.update(kinds)

    def failed_for_good(self, error: str) -> None:
        """A write was refused and will not be tried again."""
        with self._lock:
            self._permanent += 1
            self._errors.append(error)

    def result(
        self, pending: Counter[Kind], failures: int, errors: Iterable[str], *, strict: bool
    ) -> FlushResult:
        """What happened since the last result; ``strict``: drops since the last strict one."""
        with self._lock:
            delivered = self._delivered - self._told_delivered
            dropped = self._dropped - self._told[strict]
            permanent = self._permanent - self._told_permanent
            said = tuple(dict.fromkeys([*self._errors, *errors]))
        return FlushResult(
            delivered_metrics=delivered[Kind.METRIC],
            delivered_annotations=delivered[Kind.ANNOTATION],
            delivered_statuses=delivered[Kind.STATUS],
            dropped_metrics=dropped[Kind.METRIC],
            dropped_annotations=dropped[Kind.ANNOTATION],
            dropped_statuses=dropped[Kind.STATUS],
            retryable_failures=failures,
            permanent_failures=permanent,
            pending_metrics=pending[Kind.METRIC],
            pending_annotations=pending[Kind.ANNOTATION],
            pending_statuses=pending[Kind.STATUS],
            errors=said,
        )

    def told(self, *, strict: bool) -> None:
        """The caller has the result: the next one begins here."""
        with self._lock:
            self._told_delivered = Counter(self._delivered)
            self._told_permanent = self._permanent
            self._errors.clear()
            self._told[False] = Counter(self._dropped)
            if strict:
                self._told[True] = Counter(self._dropped)
