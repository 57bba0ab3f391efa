"""The budget definitions in force: read from the compacted topic, handed to every partition."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from callmeter.errors import CallmeterError, DataError
from callmeter.log.position import POSITION_KEY
from callmeter.schema.budgets import Budget, decode_budget

logger = logging.getLogger(__name__)
#: How long an edit may go unnoticed.
POLL_S = 0.5


class Definitions:
    """All definitions of a log, as one runtime has read them last.

    ``update`` is called by whoever reads the topic; ``current`` by the partitions, which tell by
    identity whether there is something new. What is not valid is logged once and skipped.
    """

    def __init__(self) -> None:
        self._rows: Mapping[bytes, bytes] | None = None
        self._budgets: tuple[Budget, ...] = ()
        self._failure: CallmeterError | None = None

    def update(self, rows: Mapping[bytes, bytes]) -> None:
        """Take up the topic's rows. A definition of a newer format makes ``current`` raise."""
        if rows == self._rows:
            return
        self._rows = dict(rows)
        found = []
        try:
            for key, value in sorted(rows.items()):
                if key == POSITION_KEY:
                    continue
                try:
                    found.append(decode_budget(value))
                except DataError as exc:
                    logger.warning("a budget definition is left out: %s", exc)
        except CallmeterError as exc:
            self.fail(exc)
            return
        self._failure = None
        if tuple(found) != self._budgets:
            logger.info("%d budget definitions", len(found))
            self._budgets = tuple(found)

    def fail(self, exc: CallmeterError) -> None:
        """The definitions cannot be known any more: ``current`` raises this."""
        self._failure = exc

    def current(self) -> tuple[Budget, ...]:
        """Every valid definition; the same tuple as long as nothing has changed."""
        if self._failure is not None:
            raise self._failure
        return self._budgets
