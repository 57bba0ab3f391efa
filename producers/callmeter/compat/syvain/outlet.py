"""All experiments of one collector on their way out: the queue's overflow, flushes, the end."""

from __future__ import annotations

import logging
import time
from collections import Counter, deque

from callmeter.compat.syvain.items import Item, Kind
from callmeter.compat.syvain.lane import Lane
from callmeter.compat.syvain.pump import Pump
from callmeter.compat.syvain.results import Books, FlushResult

DEFAULT_FLUSH_RETRIES = 3
#: Lines about a full queue within a minute; more are counted in the next line.
_MAX_WARNINGS = 10
_WINDOW_S = 60.0


class Outlet:
    """Lanes, the pump that works them off, and the books over all of them."""

    def __init__(self, flush_delay_s: float, logger: logging.Logger) -> None:
        self.books = Books()
        self._logger = logger
        self._lanes: list[Lane] = []
        self._pump = Pump(lambda: list(self._lanes), flush_delay_s, logger)
        self._warned: deque[float] = deque(maxlen=_MAX_WARNINGS)
        self._held_back = 0

    def add(self, lane: Lane) -> None:
        self._lanes.append(lane)

    def put(self, lane: Lane, item: Item) -> None:
        """Queue an item, and see that it is delivered."""
        dropped = lane.queue.put(item)
        if dropped:
            self.books.dropped(dropped)
            self._warn_full(lane, dropped)
        self._pump.ring()

    def put_final(self, lane: Lane, item: Item) -> None:
        """Queue the status that ends a run."""
        lane.queue.put_final(item)
        self._pump.ring()

    def flush(self) -> FlushResult:
        """One round that counts against the retries."""
        result = self._round(spend=True, strict=False)
        self.books.told(strict=False)
        return result

    def flush_or_raise(self, retries: int) -> FlushResult:
        """``retries`` + 1 rounds at most; raises what is not well after them."""
        if retries < 0:
            raise ValueError("retries must not be negative")
        result = FlushResult()
        for _ in range(retries + 1):
            result = self._round(spend=True, strict=True)
            if not result.pending:
                break
        self.books.told(strict=True)
        result.raise_for_failure()
        return result

    def flush_quietly(self, context: str) -> None:
        """For the end of a run: never raises, gives nothing up, one warning if it is not done."""
        result = FlushResult()
        for _ in range(DEFAULT_FLUSH_RETRIES + 1):
            result = self._round(spend=False, strict=False)
            if not result.pending or result.permanent_failures:
                break
        if not result.ok:
            self._logger.warning(
                "syvain metrics flush incomplete after %s %s", context, result.counts()
            )

    def close(self, timeout_s: float) -> None:
        """The end: within the time, shared by all experiments."""
        deadline_s = time.monotonic() + timeout_s
        self._pump.stop(min(1.0, timeout_s))
        for lane in self._lanes:
            lane.close(max(0.0, deadline_s - time.monotonic()))

    def renew(self) -> None:
        """In a forked child."""
        self.books = Books()
        self._pump.renew()
        for lane in self._lanes:
            lane.renew(self.books)

    def _round(self, *, spend: bool, strict: bool) -> FlushResult:
        failures = 0
        errors: list[str] = []
        pending: Counter[Kind] = Counter()
        for lane in list(self._lanes):
            try:
                done = lane.deliver(spend=spend)
            except Exception as exc:  # noqa: BLE001  # a flush never raises for delivery's sake
                failures += 1
                errors.append(f"{type(exc).__name__}: {exc}")
            else:
                failures += done.failures
                errors += done.errors
            pending += lane.pending()
        if pending:
            self._pump.ring()
        return self.books.result(pending, failures, errors, strict=strict)

    def _warn_full(self, lane: Lane, dropped: Counter[Kind]) -> None:
        """One line an overflow, but not a flood of them."""
        now_s = time.monotonic()
        if len(self._warned) == _MAX_WARNINGS and now_s - self._warned[0] < _WINDOW_S:
            self._held_back += dropped.total()
            return
        self._warned.append(now_s)
        held_back, self._held_back = self._held_back, 0
        self._logger.warning(
            "syvain metrics queue limit reached for experiment %s; dropped %d metrics and "
            "%d annotations%s",
            lane.slug,
            dropped[Kind.METRIC],
            dropped[Kind.ANNOTATION],
            f", and {held_back} items since the last such line" if held_back else "",
        )
