"""Waiting for a store that is away or asks to wait: the same call again, with jitter."""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable
from typing import TypeVar

from callmeter.errors import UnreachableError
from callmeter_sinks.faults import StoppedError

_log = logging.getLogger("callmeter.sink")
_T = TypeVar("_T")


class Patience:
    """Repeats a call until the store answers. One per sink; used from the sink's thread.

    Only ``UnreachableError`` (and its "not now") is waited out. The pause grows from ``first_s`` to
    ``longest_s``, each drawn from its upper half. ``stop`` ends the waiting with ``StoppedError``.
    ``meanwhile`` is called before each pause.
    """

    def __init__(
        self,
        stop: threading.Event,
        *,
        first_s: float = 0.1,
        longest_s: float = 10.0,
        meanwhile: Callable[[], None] = lambda: None,
    ) -> None:
        self._stop = stop
        self._meanwhile = meanwhile
        self._first_s = first_s
        self._longest_s = longest_s
        self.retries = 0
        self.waiting_for: str | None = None

    def until_answered(self, call: Callable[[], _T]) -> _T:
        pause_s = self._first_s
        while True:
            try:
                answer = call()
            except UnreachableError as exc:
                if self._stop.is_set():
                    raise StoppedError(f"stopped while the store was away: {exc}") from exc
                if self.waiting_for is None:  # once per outage, not once per try
                    _log.warning("waiting for the store: %s", exc)
                self.waiting_for = str(exc)
                self.retries += 1
                self._meanwhile()
                self._stop.wait(random.uniform(pause_s / 2, pause_s))
                pause_s = min(pause_s * 2, self._longest_s)
                continue
            if self.waiting_for is not None:
                _log.warning("the store answers again")
                self.waiting_for = None
            return answer
