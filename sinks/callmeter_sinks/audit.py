"""The audit log as it is stored: who did what with which model, and when.

Entries come as annotations whose metadata has an ``audit`` object (``compat.synapsekit.AuditLog``)
and stand in a table of their own. They are only ever added: this module reads, the log is
append-only, the table has no retention, and the port of an embedded store refuses to change a row.
On a server, grant readers SELECT alone.
"""

# ruff: noqa: S608 - only text of this module is put together; every value is bound

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson

from callmeter.errors import UsageError
from callmeter_sinks.clickhouse.store import Store
from callmeter_sinks.queries.dimensions import Binding, Period

MAX_ENTRIES = 10_000


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One entry. ``user``, ``model`` and ``call_id`` (a UUID) are empty if nobody said."""

    at: datetime
    project: str
    service: str
    action: str
    user: str
    model: str
    call_id: str
    detail: Mapping[str, Any]


class AuditReader:
    """Questions to the audit log of a store, of one project or of all. Reads only."""

    def __init__(self, store: Store, project: str | None = None) -> None:
        self._store = store
        self._project = project

    def query(
        self,
        *,
        user: str | None = None,
        model: str | None = None,
        action: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int = 100,
    ) -> list[AuditEntry]:
        """Entries, newest first, from ``since`` (aware), before ``until``.

        ``UsageError`` for a time without a zone or a limit outside of 1 to 10,000.
        """
        if not 1 <= limit <= MAX_ENTRIES:
            raise UsageError(f"the limit is 1 to {MAX_ENTRIES}")
        binding = Binding()
        where = Period.of(since, until).sql("at", binding)
        for column, value in (
            ("project", self._project),
            ("user", user),
            ("model", model),
            ("action", action),
        ):
            if value is not None:
                where.append(f"{column} = {binding.add(value, 'String')}")
        # By origin, since a sink that ran beside the migration may have brought an entry as well.
        answer = self._store.query(
            "SELECT at, project, service, action, user, model, "
            "if(call_id = toUUID('00000000-0000-0000-0000-000000000000'), '', toString(call_id)), "
            f"detail FROM audit WHERE {' AND '.join(where) or '1'} "
            "ORDER BY at DESC, partition, origin DESC, idx DESC "
            "LIMIT 1 BY log_id, partition, origin, idx "
            f"LIMIT {binding.add(limit, 'UInt32')}",
            binding.values,
        )
        return [_entry(row) for row in answer.rows]


def _entry(row: Sequence[Any]) -> AuditEntry:
    at, project, service, action, user, model, call_id, detail = row
    said = orjson.loads(detail or "{}")
    return AuditEntry(
        at, project, service, action, user, model, call_id, said if isinstance(said, dict) else {}
    )
