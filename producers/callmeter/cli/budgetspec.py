"""What people write on the command line about a budget, turned into its definition."""

from __future__ import annotations

import re
from collections.abc import Iterable
from decimal import Decimal

from msgspec import UNSET, UnsetType

from callmeter.errors import UsageError
from callmeter.money import to_pico
from callmeter.schema.budgets import PPM, Slo

_SECONDS = {"ms": Decimal("0.001"), "s": Decimal(1), "m": Decimal(60), "h": Decimal(3600)}
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h)\Z")
_QUANTILE = re.compile(r"p([0-9]{1,2}(?:\.[0-9]{1,4})?)\Z")
_PERCENT = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,4})?)%\Z")


def scope(pairs: Iterable[str]) -> dict[str, list[str]]:
    """``model=gpt-4o`` and the like; one key may come with several values."""
    found: dict[str, list[str]] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not (key and equals and value):
            raise UsageError(f"a scope is KEY=VALUE, not {pair[:80]!r}")
        found.setdefault(key, []).append(value)
    return found


def limit_pico(usd: str | None) -> str | UnsetType:
    """An amount of USD as pico text."""
    if usd is None:
        return UNSET
    try:
        return str(to_pico(usd))
    except ValueError as exc:
        raise UsageError(f"the limit {usd[:60]!r} is no amount of USD") from exc


def thresholds(text: str) -> list[str]:
    """``50%,80%,4.50`` as a list."""
    return [part.strip() for part in text.split(",") if part.strip()]


def objective(
    *,
    error_rate: str | None = None,
    latency: str | None = None,
    open_for: str | None = None,
    min_calls: int = 20,
) -> Slo | UnsetType:
    """An objective, if one is asked for; ``5%``, ``2s`` or ``2s@p99``, ``10m``."""
    given = [text for text in (error_rate, latency, open_for) if text is not None]
    if not given:
        return UNSET
    if len(given) > 1:
        raise UsageError("one objective a rule: --max-error-rate, --max-latency or --max-open")
    if error_rate is not None:
        found = _PERCENT.match(error_rate)
        if not found:
            raise UsageError(f"an error rate is written 5%, not {error_rate[:60]!r}")
        return Slo(
            measure="error_rate", max_ppm=int(Decimal(found[1]) * (PPM // 100)), min_calls=min_calls
        )
    if open_for is not None:
        return Slo(measure="open", max_us=_duration_us(open_for))
    duration, _, quantile = (latency or "").partition("@")
    found = _QUANTILE.match(quantile or "p95")
    if not found:
        raise UsageError(f"a quantile is written p95 or p99.9, not {quantile[:60]!r}")
    return Slo(
        measure="latency",
        max_us=_duration_us(duration),
        quantile_ppm=int(Decimal(found[1]) * (PPM // 100)),
        min_calls=min_calls,
    )


def _duration_us(text: str) -> int:
    found = _DURATION.match(text)
    if not found:
        raise UsageError(f"a duration is written 500ms, 2s, 10m or 1h, not {text[:60]!r}")
    return int(Decimal(found[1]) * _SECONDS[found[2]] * PPM)
