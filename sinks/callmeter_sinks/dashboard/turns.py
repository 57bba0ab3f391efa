"""Pages first: what runs in the background of a server asks one statement at a time, and waits."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

from callmeter.errors import CallmeterError
from callmeter_sinks.clickhouse.store import Result, Store

#: A page is followed by its panels, or by the next page: the background waits that much longer.
QUIET_S = 0.1
#: But no longer than this before one statement, however many pages are asked for.
PATIENCE_S = 2.0


class StoppedError(CallmeterError):
    """The server stops, and the background asks nothing more."""


class Turns:
    """Whose turn it is at an engine that answers one question at a time.

    Its lock knows no order: whoever asks statement after statement takes it again before one who
    waits has woken, and a page waited for many statements in a row. So the background lets pages
    go first, and a page waits for one statement at most. Used from any thread.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._pages = 0
        self._left = float("-inf")
        self._stopped = False

    @contextmanager
    def page(self) -> Iterator[None]:
        """A page is being made, until the block ends. Does not block."""
        with self._changed:
            self._pages += 1
        try:
            yield
        finally:
            with self._changed:
                self._pages -= 1
                self._left = time.monotonic()
                self._changed.notify_all()

    def give_way(self) -> None:
        """Block until no page has been made for ``QUIET_S``, at most ``PATIENCE_S``.

        Raises ``StoppedError`` after ``stop``.
        """
        with self._changed:
            patience = time.monotonic() + PATIENCE_S
            while not self._stopped:
                quiet = patience if self._pages else min(self._left + QUIET_S, patience)
                left_s = quiet - time.monotonic()
                if left_s <= 0:
                    return
                self._changed.wait(left_s)
        raise StoppedError("the server stops")

    def stop(self) -> None:
        """Nobody waits any longer, and the background's next statement is not asked."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def behind(self, store: Store) -> Store:
        """The store for the background: each question to it gives way first."""
        return cast("Store", _Behind(store, self))


class _Behind:
    """A store whose questions give way. The background asks by ``query`` alone."""

    def __init__(self, store: Store, turns: Turns) -> None:
        self._store = store
        self._turns = turns

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def query(
        self,
        sql: str,
        params: Mapping[str, Any] | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> Result:
        self._turns.give_way()
        return self._store.query(sql, params, settings)
