"""One experiment's way out: batches from its queue, one in hand at a time, until it is settled."""

from __future__ import annotations

import logging
import threading
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from callmeter.compat.syvain.delivery import Backend, NoopBackend
from callmeter.compat.syvain.items import Item, Kind
from callmeter.compat.syvain.queue import ItemQueue
from callmeter.compat.syvain.results import Books
from callmeter.schema.envelope import MAX_BYTES, MAX_EVENTS
from callmeter.transports.protocol import Outcome

#: A batch is one envelope: its items' sizes bound the lines, the rest is for header and names.
MAX_BATCH_BYTES = MAX_BYTES - 48 * 1024
_CLOSING_WAIT_S = 1.0


@dataclass(slots=True)
class Round:
    """One attempt to deliver what was queued: failures that go on later, and why."""

    failures: int = 0
    errors: list[str] = field(default_factory=list)
    retry_after_s: float | None = None


class Lane:
    """Delivers one experiment's items. ``max_retries`` bounds failed rounds of one batch."""

    def __init__(
        self,
        slug: str,
        *,
        queue_limit: int,
        max_batch: int,
        max_retries: int | None,
        books: Books,
        logger: logging.Logger,
    ) -> None:
        self.slug = slug
        self.queue = ItemQueue(queue_limit)
        self.backend: Backend = NoopBackend()
        self._max_batch = min(max_batch, MAX_EVENTS)
        self._max_retries = max_retries
        self._books = books
        self._logger = logger
        self._turn = threading.Lock()
        #: Batches taken from the queue, the first of them in hand.
        self._taken: deque[list[Item]] = deque()
        self._attempts = 0

    def deliver(self, *, spend: bool) -> Round:
        """Deliver what is queued now, oldest first, until all is settled or something must wait.

        ``spend`` counts a failure against the retries and drops what is refused; without it nothing
        is given up, so that a later flush can try again.
        """
        done = Round()
        mark = self.queue.mark()
        with self._turn:
            while self._taken or self._take(mark):
                batch = self._taken[0]
                written = self.backend.send(batch)
                if written.outcome is Outcome.DELIVERED:
                    self._settle()
                    self._books.delivered(batch)
                elif written.outcome is Outcome.REFUSED and len(batch) > 1:
                    # One bad item must not take its neighbours with it: each half goes by itself.
                    self._settle()
                    middle = len(batch) // 2
                    self._taken.extendleft((batch[middle:], batch[:middle]))
                elif written.outcome is Outcome.REFUSED:
                    self._refused(batch, written.error, done, spend=spend)
                    if not spend:
                        return done
                else:
                    done.failures += 1
                    done.errors.append(written.error)
                    done.retry_after_s = written.retry_after_s
                    if spend:
                        self._attempts += 1
                        self._drop_exhausted(batch)
                    return done
        return done

    def pending(self) -> Counter[Kind]:
        """What is queued or in hand, by kind."""
        counts = self.queue.counts()
        for batch in list(self._taken):
            counts.update(item.kind for item in batch)
        return counts

    @contextmanager
    def last_items(self) -> Iterator[Sequence[Item] | None]:
        """When the process ends: what was never handed over, while nobody else delivers.

        None if somebody does and cannot be waited for: it may be the thread that a signal handler
        has interrupted.
        """
        if not self._turn.acquire(timeout=_CLOSING_WAIT_S):
            self._logger.warning("syvain metrics of %s were being sent at the end", self.slug)
            yield None
            return
        try:
            rest = [item for batch in list(self._taken)[1:] for item in batch]
            mark = self.queue.mark()
            while batch := self.queue.take(MAX_EVENTS, MAX_BATCH_BYTES, mark):
                rest += batch
            yield rest
        finally:
            self._turn.release()

    def close(self, timeout_s: float) -> None:
        """The end: what still waits is delivered within the time, or counted as lost and logged."""
        if self.backend.local:
            self.deliver(spend=False)
        self.backend.close(timeout_s)

    def renew(self, books: Books) -> None:
        """In a forked child: what waits here is the parent's."""
        self._books = books
        self._turn = threading.Lock()
        self.queue.clear()
        self._taken.clear()
        self._attempts = 0
        self.backend.renew()

    def _take(self, mark: int) -> bool:
        batch = self.queue.take(self._max_batch, MAX_BATCH_BYTES, mark)
        if batch:
            self._taken.append(batch)
        return bool(batch)

    def _settle(self) -> None:
        with suppress(IndexError):  # a fork of this process has forgotten it
            self._taken.popleft()
        self._attempts = 0

    def _refused(self, batch: list[Item], error: str, done: Round, *, spend: bool) -> None:
        self._books.failed_for_good(error)
        if not spend:
            done.errors.append(error)
            # The next try is another write: to the backend this batch is over.
            self._taken[0] = list(batch)
            return
        self._settle()
        self._drop(batch, f"refused: {error}")

    def _drop_exhausted(self, batch: list[Item]) -> None:
        if self._max_retries is not None and self._attempts > self._max_retries:
            self._settle()
            self.backend.give_up()
            self._drop(batch, f"retry limit of {self._max_retries} reached")

    def _drop(self, batch: list[Item], why: str) -> None:
        kinds = Counter(item.kind for item in batch)
        self._books.dropped(kinds)
        self._logger.warning(
            "syvain metrics %s: experiment %s lost %d metrics, %d annotations and %d statuses",
            why,
            self.slug,
            kinds[Kind.METRIC],
            kinds[Kind.ANNOTATION],
            kinds[Kind.STATUS],
        )
