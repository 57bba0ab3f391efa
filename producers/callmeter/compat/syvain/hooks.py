"""A run's end told for whoever forgets to: at the process's exit, after an uncaught exception."""

from __future__ import annotations

import atexit
import sys
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any

_Hook = Callable[[type[BaseException], BaseException, TracebackType | None], Any]


class ProcessHooks:
    """``sys.excepthook`` and ``atexit`` of one experiment, installed at most once."""

    def __init__(
        self, on_error: Callable[[BaseException], None], on_exit: Callable[[], None]
    ) -> None:
        self._on_error = on_error
        self._on_exit = on_exit
        self._lock = threading.RLock()
        self._installed: _Hook | None = None
        self._previous: _Hook = sys.excepthook

    def install(self) -> None:
        """From now on; a hook that is already there is called afterwards."""
        with self._lock:
            if self._installed is not None:
                return
            self._previous = sys.excepthook
            self._installed = self._uncaught
            sys.excepthook = self._installed
            atexit.register(self._exit)

    def remove(self) -> None:
        """Undo; somebody who has hooked in later stays, and reaches the one before us."""
        with self._lock:
            if self._installed is None:
                return
            atexit.unregister(self._exit)
            if sys.excepthook is self._installed:
                sys.excepthook = self._previous
            self._installed = None

    def _uncaught(
        self, kind: type[BaseException], exc: BaseException, trace: TracebackType | None
    ) -> None:
        try:
            if self._installed is not None:
                self._on_error(exc)
        finally:
            self._previous(kind, exc, trace)

    def _exit(self) -> None:
        self._on_exit()
