"""Which alerts there must be, by the truth of what was sent: docs/reference/formats.md, not code.

Ids are hashed here anew. ``certain`` must be said, ``possible`` may be: a month that ends while the
traffic runs changes after its alerts, depending on who was faster.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fractions import Fraction
from functools import partial
from typing import NamedTuple

from callmeter.schema.budgets import Budget, Slo, next_version
from support.pipeline_events import PROJECT, Sent, Spent, by_budget

USD = 10**12
MIN_CALLS = 20
#: Budget → which events it counts.
_SCOPES: Mapping[str, dict[str, list[str]]] = {
    "all": {"project": [PROJECT]},
    "tokens": {"project": [PROJECT]},
    "users": {},
    "sessions": {},
    "failing": {"service": ["failing"]},
    "slow": {"service": ["slow"]},
    "refunded": {"service": ["refunded"]},
}
#: Too little to take "all", which counts it too, back by the 5 % that withdraw a threshold.
REFUNDED_PICO = USD // 1000


def identity(*parts: str | int) -> str:
    """An alert's id: SHA-256 over the parts, each after its length in four bytes, 32 hex digits."""
    data = b"".join(len(p).to_bytes(4, "big") + p for p in (str(x).encode() for x in parts))
    return hashlib.sha256(data).hexdigest()[:32]


def budgets(now_us: int) -> dict[str, Budget]:
    """The definitions: money and tokens, whole and per user and session, objectives."""
    limits: dict[str, dict[str, object]] = {
        "all": {"limit_pico": str(20 * USD), "thresholds": ["0.5%", "1%", "10%", "50%", "100%"]},
        "tokens": {"limit_tokens": 2_000_000, "thresholds": ["10%", "50%", "100%"]},
        "users": {"limit_pico": str(USD // 2), "per": "user", "thresholds": ["1%", "10%", "100%"]},
        "sessions": {
            "limit_pico": str(USD // 5), "per": "session", "window": "session",
            "thresholds": ["2%", "50%", "100%"],
        },
        "failing": {"slo": Slo(measure="error_rate", max_ppm=500_000, min_calls=MIN_CALLS)},
        "slow": {"slo": Slo(measure="latency", max_us=2_000_000, min_calls=MIN_CALLS)},
        "refunded": {"limit_pico": str(REFUNDED_PICO), "thresholds": ["50%"]},
    }  # fmt: skip
    return {
        name: next_version(
            None,
            Budget(id=name, scope=dict(_SCOPES[name]), **({"window": "month"} | fields)),  # type: ignore[arg-type]
            now_us,
        )
        for name, fields in limits.items()
    }


@dataclass
class Expected:
    """Ids by what they are for, and the spend of each budget and entity in its current window."""

    certain: dict[str, str] = field(default_factory=dict)
    possible: set[str] = field(default_factory=set)
    spend: dict[tuple[str, str], tuple[int, int]] = field(default_factory=dict)

    def say(self, what: str, *parts: str | int) -> str:
        """One more id that must be said."""
        own = identity(*parts)
        self.certain[own] = what
        return own


def month_of(at_us: int) -> tuple[int, int]:
    """Start and end of the calendar month in UTC."""
    start = datetime.fromtimestamp(at_us // 1_000_000, UTC).replace(
        day=1, hour=0, minute=0, second=0, microsecond=0
    )
    end = start.replace(year=start.year + start.month // 12, month=start.month % 12 + 1)
    return int(start.timestamp()) * 1_000_000, int(end.timestamp()) * 1_000_000


def expect_budgets(
    expected: Expected, sent: Sent, definitions: Mapping[str, Budget], until_us: int
) -> None:
    """Every threshold that the sums reach, every objective that is broken, and the spend."""
    for budget in definitions.values():
        for place, sums in by_budget(sent.spent, partial(_place, budget)).items():
            if not place.end_us or place.start_us <= until_us < place.end_us:
                expected.spend[budget.id, place.entity] = (sums[0], sums[1])
            if not 0 < place.end_us <= budget.terms_us:
                _expect(expected, _Crossings(budget, place, *sums), until_us)


class _Place(NamedTuple):
    """An entity and its window; 0 and 0 is a window without an end."""

    entity: str
    start_us: int
    end_us: int


class _Crossings(NamedTuple):
    """What one window of one entity came to."""

    budget: Budget
    place: _Place
    pico: int
    tokens: int
    calls: int

    def threshold(self, expected: Expected, measure: str, text: str) -> str:
        """It has reached this threshold once."""
        name, entity, start = self.budget.id, self.place.entity, self.place.start_us
        what = f"{name} {entity} {text} of {measure}"
        return expected.say(what, "threshold", name, 1, entity, start, measure, text, 0)


def _place(budget: Budget, each: Spent) -> _Place | None:
    services = budget.scope.get("service")
    entity = {"": "", "user": each.user, "session": each.session}[budget.per]
    if (services and each.service not in services) or (budget.per and not entity):
        return None
    window = (0, 0) if budget.window == "session" else month_of(each.started_us)
    return _Place(entity, *window)


def _expect(expected: Expected, sums: _Crossings, until_us: int) -> None:
    budget, place = sums.budget, sums.place
    if budget.id == "refunded":
        own = sums.threshold(expected, "cost", "50%")
        expected.say("refunded withdrawn", "withdrawn", own)
    elif isinstance(budget.slo, Slo):
        if sums.calls >= MIN_CALLS:
            what = f"{budget.id} is broken"
            expected.say(what, "slo", budget.id, 1, place.entity, place.start_us, 0)
    else:
        measure, value, limit = "cost", sums.pico, budget.limit_pico
        if not isinstance(limit, str):
            measure, value, limit = "tokens", sums.tokens, str(budget.limit_tokens)
        for text in budget.thresholds:
            if value * 100 >= int(limit) * Fraction(text[:-1]):
                own = sums.threshold(expected, measure, text)
                if 0 < place.end_us <= until_us:
                    expected.possible.add(identity("moved", own))
