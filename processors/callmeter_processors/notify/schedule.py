"""When a delivery that failed is tried again, and when it is given up."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

#: A receiver that asks for more patience than this is not believed.
MAX_RETRY_AFTER_S = 3600.0


@dataclass(frozen=True, slots=True)
class Retry:
    """Doubling delays between ``base_s`` and ``cap_s``, ``attempts`` in all.

    With the defaults a delivery is given up after 18 to 37 minutes of a receiver that is away.
    """

    attempts: int = 15
    base_s: float = 1.0
    cap_s: float = 300.0

    def delay_s(self, tries: int, rng: random.Random, retry_after_s: float | None = None) -> float:
        """Seconds until the next attempt after ``tries`` of them; at least what was asked for.

        Half of the delay is random, so that many deliveries do not come back at one moment.
        """
        full = min(self.cap_s, self.base_s * 2.0 ** min(tries - 1, 60))
        delay = full * rng.uniform(0.5, 1.0)
        return delay if retry_after_s is None else max(delay, retry_after_s)

    def is_over(self, tries: int) -> bool:
        """Whether there was the last attempt."""
        return tries >= self.attempts


def retry_after_s(text: str | None, now_us: int) -> float | None:
    """The header Retry-After, seconds or a date, as seconds from now; None if it says nothing."""
    if text is None:
        return None
    text = text.strip()
    if text.isascii() and text.isdigit():
        return min(float(text), MAX_RETRY_AFTER_S)
    try:
        when = parsedate_to_datetime(text)
    except (TypeError, ValueError):
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    left = (when - datetime.fromtimestamp(now_us / 1e6, UTC)).total_seconds()
    return min(max(left, 0.0), MAX_RETRY_AFTER_S)
