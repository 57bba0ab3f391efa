"""Figures as people read them: money, counts, durations, times. Unknown is ``–``, never 0."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

from callmeter_sinks.report import plain_usd

UNKNOWN = "–"


def usd(amount: Decimal | None) -> str:
    """Money to read at a glance: two digits from 100 USD on, four significant ones below.

    >>> usd(Decimal("5.8074795")), usd(Decimal("0.000618")), usd(Decimal("12345.678"))
    ('5.807', '0.000618', '12,345.68')
    """
    if amount is None:
        return UNKNOWN
    if not amount:
        return "0"
    if abs(amount) >= 100:
        return f"{amount:,.2f}"
    digits = 3 - amount.adjusted()
    shown = plain_usd(amount.quantize(Decimal(1).scaleb(-min(digits, 12))))
    return shown if shown != "0" else plain_usd(amount)


def exact_usd(amount: Decimal | None) -> str:
    """Money to the last pico, as ``callmeter report --json`` writes it; empty if unknown."""
    return "" if amount is None else plain_usd(amount)


def count(value: int | None) -> str:
    """``1,234,567``."""
    return UNKNOWN if value is None else f"{value:,}"


def short(value: int | None) -> str:
    """``1.23 M``: a count for a tile; the whole number stands beside it."""
    if value is None:
        return UNKNOWN
    for size, sign in ((10**12, "T"), (10**9, "G"), (10**6, "M"), (10**4, "k")):
        if abs(value) >= size:
            return f"{value / (1000 if sign == 'k' else size):,.4g} {sign}"
    return f"{value:,}"


def percent(part: int, whole: int) -> str:
    """``2.5 %``; of nothing it is unknown, and what is there is never shown as none of it."""
    if not whole:
        return UNKNOWN
    share = 100 * part / whole
    return "< 0.01 %" if 0 < share < 0.01 else f"{share:.3g} %"


def ms(value: float | None) -> str:
    """A duration in milliseconds, in the unit that suits it: ``840 µs``, ``12.3 ms``, ``1.25 s``.

    >>> ms(0.84), ms(12.34), ms(1250), ms(95_000), ms(None)
    ('840 µs', '12.3 ms', '1.25 s', '1 m 35 s', '–')
    """
    if value is None:
        return UNKNOWN
    if value < 1:
        return f"{value * 1000:.3g} µs"
    if value < 999.5:
        return f"{value:.3g} ms"
    seconds = value / 1000
    if seconds < 59.995:
        return f"{seconds:.3g} s"
    whole = round(seconds)
    minutes, hours, days = whole // 60, whole // 3600, whole // 86_400
    if minutes < 60:
        return f"{minutes} m {whole % 60} s"
    return f"{hours} h {minutes % 60} m" if hours < 48 else f"{days} d {hours % 24} h"


def us(value: int | None) -> str:
    """A duration in microseconds."""
    return ms(None if value is None else value / 1000)


def moment(value: datetime | None) -> str:
    """A time in UTC to the second."""
    return UNKNOWN if value is None else value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")


def minute(value: datetime) -> str:
    """A time in UTC to the minute."""
    return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M")


def iso(value: datetime) -> str:
    """A time for machines: ISO 8601 in UTC."""
    return value.astimezone(UTC).isoformat().replace("+00:00", "Z")


def ago(value: datetime, now: datetime) -> str:
    """``12.3 s ago``; what is ahead of the clock, but not by much, is now."""
    seconds = (now - value).total_seconds()
    if seconds < -1:
        return f"in {ms(-seconds * 1000)}"
    return "now" if seconds < 1 else f"{ms(seconds * 1000)} ago"


def number(value: float) -> str:
    """A metric's value with six significant digits."""
    return f"{value:.6g}"
