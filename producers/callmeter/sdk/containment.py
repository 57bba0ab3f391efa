"""The SDK never hurts its host: its own errors are contained in production and raised under test.

Raised when ``CALLMETER_RAISE`` is set or inside ``callmeter.testing.raising()``; else counted and
logged on the logger ``callmeter``, one line a minute at most whatever goes wrong.
"""

from __future__ import annotations

import functools
import logging
import os
import time
from collections.abc import Callable
from typing import ParamSpec

from callmeter.settings import is_true

logger = logging.getLogger("callmeter")
P = ParamSpec("P")

#: One log line in so many seconds; what was held back is counted in the next.
LOG_EVERY_S = 60.0


class Complaints:
    """Log lines about trouble, at most one a minute for each client."""

    def __init__(self, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        self._monotonic_s = monotonic_s
        self._next_s = float("-inf")
        self._held_back = 0

    def warn(self, text: str) -> None:
        """Log a line, or count it if one was logged within the last minute."""
        now_s = self._monotonic_s()
        if now_s < self._next_s:
            self._held_back += 1
            return
        self._next_s = now_s + LOG_EVERY_S
        if self._held_back:
            text = f"{text} ({self._held_back} more since the last such line)"
            self._held_back = 0
        logger.warning("%s", text)


class Containment:
    """Where contained errors go: a count and, once a minute, a line."""

    def __init__(self) -> None:
        self.raising = is_true(os.environ.get("CALLMETER_RAISE"))
        self.contained = 0
        self._complaints = Complaints()

    def caught(self, where: str, exc: BaseException) -> None:
        """An entry point failed: raise under test, else count and log. Never raises in
        production.
        """
        if self.raising:
            raise exc
        self.contained += 1
        self._complaints.warn(f"{where} failed and was ignored: {type(exc).__name__}: {exc}")


#: One for the process: errors are contained even where there is no client yet.
CONTAINMENT = Containment()


def contained(where: str) -> Callable[[Callable[P, None]], Callable[P, None]]:
    """A callback that somebody else's library calls: its errors are ``CONTAINMENT``'s."""

    def around(callback: Callable[P, None]) -> Callable[P, None]:
        @functools.wraps(callback)
        def safe(*args: P.args, **kwargs: P.kwargs) -> None:
            try:
                callback(*args, **kwargs)
            except Exception as exc:  # noqa: BLE001  # the host's program goes on unmetered
                CONTAINMENT.caught(where, exc)

        return safe

    return around
