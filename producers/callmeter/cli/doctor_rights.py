"""The doctor's look at what the principal of a Kafka URL is allowed, part by part.

The table is that of docs/guides/workers.md. A principal is for one part or for some, and the doctor
may have one of its own: what is missing is worth a look, never wrong by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from callmeter.cli.doctor_finding import Finding, State
from callmeter.log.kafka_settings import KafkaSettings

if TYPE_CHECKING:
    from callmeter.log.kafka_rights import Rights

GUIDE = "workers.md#rights-in-kafka"
_READ = ("Read", "Describe")
_WRITE = ("Write", "Describe")
_BOTH = ("Read", "Write", "Describe")


@dataclass(frozen=True, slots=True)
class Part:
    """What a part needs: operations by topic and by group, and a transactional id a partition."""

    topics: Mapping[str, tuple[str, ...]]
    groups: tuple[str, ...] = ()
    transactions: str = ""

    def lacking(self, rights: Rights, partitions: int) -> Iterator[str]:
        """What it needs and does not have, in words; names without the prefix."""
        for name, wanted in self.topics.items():
            yield from _lacking("topic", name, wanted, rights.topics.get(name, frozenset()))
        for name in self.groups:
            yield from _lacking("group", name, _READ, rights.groups.get(name, frozenset()))
        ids = [f"{self.transactions}.{n}" for n in range(partitions)] if self.transactions else []
        without = [one for one in ids if one not in rights.transactional_ids]
        if without:
            more = f" and {len(without) - 1} more" if len(without) > 1 else ""
            yield f"Write on transactional id {without[0]}{more}"


#: Every topic of the prefix must be seen by workers: they look whether all are there.
PARTS: Mapping[str, Part] = {
    "collector": Part(
        {"events": _WRITE, **dict.fromkeys(("log", "budgets", "budget-status", "alerts"), _READ)}
    ),
    "meter": Part(
        {
            "events": _READ, "meter-state": _BOTH, "metered": _WRITE, "spend": _WRITE,
            "alerts": _WRITE, "prices": _READ, "log": _READ, "budgets": _READ,
        },
        ("meter",),
        "meter",
    ),
    "watch": Part(
        {
            "spend": _READ, "watch-state": _BOTH, "budget-status": _WRITE, "alerts": _WRITE,
            "live": _WRITE, "log": _READ, "budgets": _READ,
        },
        ("watch",),
        "watch",
    ),
    "sink": Part(
        dict.fromkeys(("metered", "alerts", "budgets", "budget-status", "live", "log"), _READ),
        ("sink", "sink.alerts", "sink.budgets", "sink.budget-status", "sink.live"),
    ),
    "notify": Part(dict.fromkeys(("alerts", "log"), _READ)),
}  # fmt: skip


def look_at_rights(settings: KafkaSettings, partitions: int) -> Finding:
    """Which parts the principal may work as, and what it lacks for the others."""
    from callmeter.log.kafka_rights import read_rights

    topics = {name for part in PARTS.values() for name in part.topics}
    groups = [group for part in PARTS.values() for group in part.groups]
    ids = [f"{p.transactions}.{n}" for p in PARTS.values() if p.transactions
           for n in range(partitions)]  # fmt: skip
    rights = asyncio.run(read_rights(settings, sorted(topics), groups, ids))
    return finding_of(rights, partitions)


def finding_of(rights: Rights, partitions: int) -> Finding:
    """The same of rights that are known."""
    lacking = {name: list(part.lacking(rights, partitions)) for name, part in PARTS.items()}
    able = [name for name, missing in lacking.items() if not missing]
    if len(able) == len(PARTS):
        return Finding("rights", State.OK, f"may work as {', '.join(able)}", GUIDE)
    told = [f"{name} lacks {', '.join(missing)}" for name, missing in lacking.items() if missing]
    may = f"may work as {', '.join(able)}" if able else "may work as no part"
    return Finding("rights", State.NOTICE, f"{may}; {'; '.join(told)}", GUIDE)


def _lacking(
    kind: str, name: str, wanted: tuple[str, ...], allowed: frozenset[str]
) -> Iterator[str]:
    missing = [operation for operation in wanted if operation not in allowed]
    if missing:
        yield f"{' and '.join(missing)} on {kind} {name}"
