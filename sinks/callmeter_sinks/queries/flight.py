"""Calls that have begun and not ended, as the watch last counted them."""

# ruff: noqa: S608 - only text of this package is put together; every value is bound

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from callmeter.errors import UsageError
from callmeter_sinks.clickhouse.store import Store
from callmeter_sinks.queries.dimensions import Binding

#: What the snapshots know of an open call.
DIMENSIONS = ("project", "provider", "model")


@dataclass(frozen=True, slots=True)
class OpenRow:
    """How many calls of a group are open; ``at`` is when the newest of its snapshots was made."""

    key: Mapping[str, str]
    open: int
    at: datetime


def in_flight(store: Store, by: Sequence[str], *, project: str | None) -> list[OpenRow]:
    """Open calls by dimensions, most first. See ``Queries.in_flight``."""
    for name in by:
        if name not in DIMENSIONS:
            raise UsageError(
                f"calls in flight are not known by {name[:60]!r}: there are {', '.join(DIMENSIONS)}"
            )
    if len(set(by)) != len(by):
        raise UsageError("a dimension is named twice")
    binding = Binding()
    where = "number > 0"
    if project is not None:
        where += f" AND project = {binding.add(project, 'String')}"
    newest = (
        "SELECT * FROM (SELECT * FROM in_flight ORDER BY topic_offset DESC "
        "LIMIT 1 BY log_id, project) ORDER BY log_ts DESC LIMIT 1 BY project"
    )
    keys = "".join(f"{name}, " for name in by)
    groups = f"GROUP BY {', '.join(by)} " if by else ""
    answer = store.query(
        f"SELECT {keys}sum(number) AS n, max(at) FROM (SELECT project, at, provider, model, number "
        f"FROM ({newest}) ARRAY JOIN providers AS provider, models AS model, open AS number) "
        f"WHERE {where} {groups}HAVING n > 0 ORDER BY {', '.join(('n DESC', *by))}",
        binding.values,
    )
    return [
        OpenRow(dict(zip(by, map(str, row), strict=False)), int(row[-2]), row[-1])
        for row in answer.rows
    ]
