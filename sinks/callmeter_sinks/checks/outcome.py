"""What a comparison says, and how comparisons are run against a store that others write to."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from decimal import Decimal

#: Examples of differing windows that one check carries.
MAX_EXAMPLES = 20
TRIES = 4
PAUSE_S = 0.5

Number = int | Decimal


@dataclass(frozen=True, slots=True)
class Check:
    """Two totals that must agree, and whether they do in every window and dimension.

    ``raw`` is the side of the single rows, ``rollups`` the side of the sums (or books). ``equal``
    may be false although the totals agree: then ``differing`` counts the keys that do not, and
    ``examples`` shows some.
    """

    what: str
    raw: Number
    rollups: Number
    differing: int = 0
    examples: tuple[str, ...] = ()

    @property
    def equal(self) -> bool:
        return self.raw == self.rollups and not self.differing


@dataclass(frozen=True, slots=True)
class Unverifiable:
    """Something that cannot be compared, because one side is known to be gone."""

    what: str
    reason: str


@dataclass
class Comparison:
    """One run over a part of the store: totals by measure, and the keys that differ by measure."""

    totals: dict[str, tuple[Number, Number]] = field(default_factory=dict)
    differing: dict[str, set[Hashable]] = field(default_factory=dict)

    def add(self, other: Comparison) -> None:
        """Join another part's run to this one."""
        for what, (raw, rollups) in other.totals.items():
            old_raw, old_rollups = self.totals.get(what, (0, 0))
            self.totals[what] = (old_raw + raw, old_rollups + rollups)
        for what, keys in other.differing.items():
            self.differing.setdefault(what, set()).update(keys)

    def checks(self, name: str = "{}") -> list[Check]:
        """One check a measure, in the order of the totals; ``name`` formats the measure's."""
        found = []
        for what, (raw, rollups) in self.totals.items():
            keys = self.differing.get(what, set())
            said = name.format("cost_usd" if what == "cost" else what)
            examples = tuple(sorted(map(str, keys))[:MAX_EXAMPLES])
            found.append(Check(said, raw, rollups, len(keys), examples))
        return found


def settled(
    run: Callable[[], Comparison], *, sleep: Callable[[float], None] = time.sleep
) -> Comparison:
    """Run a comparison until nothing differs; what still does after ``TRIES`` runs is real.

    An insert fills its tables one after the other within milliseconds, so a store that is being
    written to may differ for a moment at the keys of that insert. A key that differs in every run
    differs; totals are those of the last run.
    """
    found = run()
    for _ in range(TRIES - 1):
        if not any(found.differing.values()):
            break
        sleep(PAUSE_S)
        again = run()
        for what in again.differing:
            again.differing[what] &= found.differing.get(what, set())
        found = again
    return _without_settled_totals(found)


def _without_settled_totals(found: Comparison) -> Comparison:
    """Where no key differs in every run, the totals differed by an insert under way only."""
    for what, (raw, rollups) in found.totals.items():
        if raw != rollups and not found.differing.get(what):
            found.totals[what] = (raw, raw)
    return found
