"""The background thread of one collector: delivers after the flush delay, tries again later."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Iterable

from callmeter.compat.syvain.lane import Lane

#: Its own: a program that seeds the global one gets the numbers it would get without us.
_random = random.Random()
MAX_PAUSE_S = 30.0
#: Trouble younger than this is nobody's business: a later try usually settles it.
_COMPLAIN_AFTER_S = 60.0


class Pump:
    """Sleeps until something is queued, waits for company, delivers every experiment's items."""

    def __init__(
        self, lanes: Callable[[], Iterable[Lane]], delay_s: float, logger: logging.Logger
    ) -> None:
        self._lanes = lanes
        self._delay_s = delay_s
        self._logger = logger
        self.renew()

    def renew(self) -> None:
        """In a forked child: the thread is the parent's."""
        self._work = threading.Event()
        self._stop = threading.Event()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None

    def ring(self) -> None:
        """Something was queued. Cheap when the thread knows already."""
        if not self._work.is_set():
            self._work.set()
            if self._thread is None:
                self._start()

    def stop(self, timeout_s: float) -> None:
        """End the thread; what is being sent is not waited for beyond the time."""
        self._stop.set()
        self._work.set()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout_s)

    def _start(self) -> None:
        with self._starting:
            if self._thread is None and not self._stop.is_set():
                self._thread = threading.Thread(
                    target=self._run, name="callmeter-syvain", daemon=True
                )
                self._thread.start()

    def _run(self) -> None:
        failed_since_s: float | None = None
        failures = 0
        while True:
            self._work.wait()
            if self._stop.wait(self._pause_s(failures) if failures else self._delay_s):
                return
            self._work.clear()
            failed, asked_s, error = self._round()
            if not failed:
                failed_since_s, failures = None, 0
                continue
            failures += 1
            self._work.set()  # what failed is still there
            now_s = time.monotonic()
            failed_since_s = now_s if failed_since_s is None else failed_since_s
            if now_s - failed_since_s >= _COMPLAIN_AFTER_S:
                failed_since_s = now_s
                self._logger.warning("syvain metrics not delivered yet, trying again: %s", error)
            if asked_s and self._stop.wait(min(asked_s, MAX_PAUSE_S)):
                return

    def _round(self) -> tuple[bool, float | None, str]:
        """One round over all experiments: whether any failed, the longest wish to wait, why."""
        failed, asked_s, error = False, None, ""
        for lane in self._lanes():
            if not lane.pending():
                continue
            try:
                done = lane.deliver(spend=True)
            except Exception:
                self._logger.exception("syvain metrics delivery of %s failed", lane.slug)
                failed, error = True, "see the log"
                continue
            if done.failures:
                failed, error = True, done.errors[-1]
                asked_s = max(asked_s or 0.0, done.retry_after_s or 0.0)
        return failed, asked_s, error

    def _pause_s(self, failures: int) -> float:
        """Exponential from the flush delay, with jitter."""
        base_s = max(self._delay_s, 0.25) * 2.0 ** min(failures - 1, 10)
        return min(base_s, MAX_PAUSE_S) * (0.75 + _random.random() / 4)
