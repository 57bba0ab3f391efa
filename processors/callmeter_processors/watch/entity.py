"""What the watch knows of one entity of a budget: sums by window, open calls, burn rates.

Everything here is a sum or a maximum, so records of different meters may come in any order and
batching. Values are kept as lists of JSON in the journal.
"""

from __future__ import annotations

from typing import Any

import orjson
from msgspec import UNSET

from callmeter.schema.spend import Spend
from callmeter.schema.windows import HOUR_US, window_of_hour

_DAY_US = 24 * HOUR_US
#: How long a window is kept after it ended, by the log's time.
KEEP_US = {"hour": 48 * HOUR_US, "day": 35 * _DAY_US, "month": 93 * _DAY_US, "session": 0}
#: A session is forgotten when nothing was heard of it for so long.
KEEP_SESSION_US = 35 * _DAY_US
#: Partitions may be so far apart in the log's time before sums of old windows are dropped.
_SLACK_US = 2 * _DAY_US

BURN_US = 300_000_000
#: The long burn window is so many buckets and the running one; the short one is 1 and the running.
LONG_BUCKETS = 12


class Crossing:
    """A threshold or objective of one window: how often it was crossed, and whether it is now."""

    __slots__ = ("active", "count", "moved")

    def __init__(self, count: int = 0, *, active: bool = False, moved: bool = False) -> None:
        self.count = count
        self.active = active
        self.moved = moved


class WindowSum:
    """One window of one entity. ``late_*`` is the part that came after the window's end."""

    __slots__ = (
        "calls",
        "cost",
        "crossings",
        "failures",
        "forgiven_cost",
        "forgiven_tokens",
        "hist",
        "late",
        "late_cost",
        "late_tokens",
        "tokens",
        "unpriced",
        "usage_unknown",
    )

    def __init__(self) -> None:
        self.cost = 0
        self.tokens = 0
        self.calls = 0
        self.failures = 0
        self.unpriced = 0
        self.usage_unknown = 0
        self.late = False
        self.late_cost = 0
        self.late_tokens = 0
        self.forgiven_cost = 0
        self.forgiven_tokens = 0
        self.hist: dict[int, int] | None = None
        self.crossings: dict[str, Crossing] = {}

    def add(self, line: Spend, cost: int, *, late: bool) -> None:
        """Add one line of ``spend``."""
        self.cost += cost
        self.tokens += line.tokens
        self.calls += line.calls
        self.failures += line.failures
        self.unpriced += line.unpriced
        self.usage_unknown += line.usage_unknown
        if late:
            self.late = True
            self.late_cost += cost
            self.late_tokens += line.tokens
        if line.latency_hist is not UNSET:
            if self.hist is None:
                self.hist = {}
            for index, count in line.latency_hist.items():
                self.hist[index] = self.hist.get(index, 0) + count

    def forgive(self) -> None:
        """A manual reset: what was spent until now no longer counts, thresholds are armed again."""
        self.forgiven_cost = self.cost
        self.forgiven_tokens = self.tokens
        for crossing in self.crossings.values():
            crossing.active = False

    def dump(self) -> list[Any]:
        """As JSON; sums of money as text, for they may be above 64 bits."""
        return [
            str(self.cost), self.tokens, self.calls, self.failures, self.unpriced,
            self.usage_unknown, self.late, str(self.late_cost), self.late_tokens,
            str(self.forgiven_cost), self.forgiven_tokens,
            None if self.hist is None else {str(k): v for k, v in self.hist.items()},
            {key: [c.count, c.active, c.moved] for key, c in self.crossings.items()},
        ]  # fmt: skip

    @classmethod
    def load(cls, raw: list[Any]) -> WindowSum:
        """What ``dump`` wrote."""
        made = cls()
        (
            cost, made.tokens, made.calls, made.failures, made.unpriced, made.usage_unknown,
            made.late, late_cost, made.late_tokens, forgiven_cost, made.forgiven_tokens, hist,
            crossings,
        ) = raw  # fmt: skip
        made.cost, made.late_cost = int(cost), int(late_cost)
        made.forgiven_cost = int(forgiven_cost)
        made.hist = None if hist is None else {int(k): v for k, v in hist.items()}
        for key, (count, active, moved) in crossings.items():
            made.crossings[key] = Crossing(count, active=active, moved=moved)
        return made


class Entity:
    """One entity of one basis of a budget."""

    __slots__ = (
        "basis",
        "budget",
        "burn",
        "exposure",
        "heard_us",
        "key",
        "late_cost",
        "name",
        "open",
        "resets",
        "window",
        "windows",
    )

    def __init__(self, budget: str, basis: int, name: str, window: str) -> None:
        self.budget = budget
        self.basis = basis
        self.name = name
        self.window = window
        self.key = orjson.dumps(["e", budget, basis, name]).decode()
        self.windows: dict[int, WindowSum] = {}
        self.open = 0
        self.exposure = 0
        self.burn: dict[int, int] = {}
        self.late_cost = 0
        self.resets = 0
        self.heard_us = 0

    def add(self, line: Spend, log_us: int, now_us: int, *, counted: bool) -> int | None:
        """Add a line of ``spend`` of log time ``log_us``; the start of the window it changed.

        None if it changed none: open calls only, or a window too old to be kept. ``counted`` lines
        were spent at ``log_us`` and burn; an opening balance was spent some time before.
        """
        self.heard_us = max(self.heard_us, log_us)
        self.open += line.open
        self.exposure += int(line.exposure_pico)
        cost = int(line.cost_pico)
        if cost and counted:
            self._burn(cost, log_us)
        if not (line.hour or line.calls or cost or line.tokens):
            return None
        start_us, end_us = window_of_hour(self.window, line.hour)
        if end_us and end_us < self._horizon(now_us):
            self.late_cost += cost
            return None
        window = self.windows.get(start_us)
        if window is None:
            window = self.windows[start_us] = WindowSum()
        window.add(line, cost, late=0 < end_us <= log_us)
        return start_us

    def _burn(self, cost: int, log_us: int) -> None:
        bucket = log_us // BURN_US
        burn = self.burn
        burn[bucket] = burn.get(bucket, 0) + cost
        if len(burn) > LONG_BUCKETS + 1:
            oldest = max(burn) - LONG_BUCKETS
            self.burn = {index: spent for index, spent in burn.items() if index >= oldest}

    def rates(self, now_us: int) -> tuple[int, int]:
        """Pico-USD an hour over the short and the long burn window that end now."""
        running = now_us // BURN_US
        rates = []
        for buckets in (1, LONG_BUCKETS):
            first = running - buckets
            spent = sum(cost for index, cost in self.burn.items() if first <= index <= running)
            rates.append(spent * HOUR_US // max(1, now_us - first * BURN_US))
        return rates[0], rates[1]

    def _horizon(self, now_us: int) -> int:
        return now_us - KEEP_US[self.window] - _SLACK_US

    def forget(self, now_us: int) -> bool:
        """Drop windows that are too old; True if something was dropped."""
        if self.window == "session":
            return False
        horizon = self._horizon(now_us)
        old = [
            start
            for start in self.windows
            if window_of_hour(self.window, start // HOUR_US)[1] < horizon
        ]
        for start in old:
            del self.windows[start]
        return bool(old)

    def gone(self, now_us: int) -> bool:
        """Whether nothing is left that anybody could ask for."""
        if self.open or self.heard_us > now_us - KEEP_SESSION_US:
            return False
        return self.window == "session" or not self.windows

    def dump(self, *, pending: bool) -> bytes:
        """The journal's value; ``pending``: a status of it is still to be written."""
        return orjson.dumps(
            [
                self.window, self.open, str(self.exposure), str(self.late_cost), self.resets,
                self.heard_us, pending,
                {str(index): str(cost) for index, cost in self.burn.items()},
                {str(start): window.dump() for start, window in self.windows.items()},
            ]
        )  # fmt: skip


def load_entity(budget: str, basis: int, name: str, value: bytes) -> tuple[Entity, bool]:
    """The entity that ``Entity.dump`` wrote, and whether a status of it is still to be written."""
    window, opened, exposure, late_cost, resets, heard_us, pending, burn, windows = orjson.loads(
        value
    )
    entity = Entity(budget, basis, name, window)
    entity.open, entity.exposure = opened, int(exposure)
    entity.late_cost, entity.resets, entity.heard_us = int(late_cost), resets, heard_us
    entity.burn = {int(index): int(cost) for index, cost in burn.items()}
    entity.windows = {int(start): WindowSum.load(raw) for start, raw in windows.items()}
    return entity, pending
