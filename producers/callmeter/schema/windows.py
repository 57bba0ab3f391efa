"""The windows of budgets: calendar hours, days and months in UTC, and sessions."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache

HOUR_US = 3_600_000_000
#: ``session`` has no times: its window is the value of the call's ``session``.
WINDOWS = ("hour", "day", "month", "session")


def hour_of(at_us: int) -> int:
    """The hour since the epoch that a time lies in."""
    return at_us // HOUR_US


@lru_cache(maxsize=4096)
def window_of_hour(window: str, hour: int) -> tuple[int, int]:
    """Start and end of the window that an hour lies in, in microseconds; the end is excluded.

    (0, 0) for ``session``. ``ValueError`` for what is no window.

    >>> window_of_hour("day", 24 * 365 + 5)
    (31536000000000, 31622400000000)
    """
    if window == "hour":
        return hour * HOUR_US, (hour + 1) * HOUR_US
    if window == "day":
        day = hour // 24
        return day * 24 * HOUR_US, (day + 1) * 24 * HOUR_US
    if window == "month":
        start = datetime.fromtimestamp(hour * 3600, UTC).replace(day=1, hour=0)
        year, month = divmod(start.year * 12 + start.month, 12)
        end = start.replace(year=year, month=month + 1)
        return int(start.timestamp()) * 1_000_000, int(end.timestamp()) * 1_000_000
    if window == "session":
        return 0, 0
    raise ValueError(f"unknown window {window[:60]!r}: one of {', '.join(WINDOWS)}")


def window_at(window: str, at_us: int) -> tuple[int, int]:
    """Start and end of the window that a time lies in; see ``window_of_hour``."""
    return window_of_hour(window, hour_of(at_us))
