"""How long rows are kept, counted from their arrival: a setting, so no migration.

Never by event time: the rows of a trace from last year would be gone at once. ``log_ts`` is the
log's time of the record that brought a row; of a rollup it is the latest of those that were added.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from callmeter.errors import ConfigError
from callmeter_sinks.clickhouse.store import Store

#: Days by table on a server; None is for ever. Embedded keeps everything.
SERVER_DAYS: Mapping[str, int | None] = {
    "calls": 90,
    "calls_open": 2,
    "costs": 90,
    "metrics": None,
    "annotations": None,
    "experiments": None,
    "dead_letters": 30,
    "envelopes": 60,
    "rollup_controls": 60,
    "rollup_1m": 30,
    "hist_1m": 30,
    "rollup_1h": None,
    "hist_1h": None,
    "rollup_1d": None,
    "hist_1d": None,
    "alerts": None,
    "gaps": None,
    "budgets": None,
    "budget_status": 30,
    "budget_now": None,
    "in_flight": 2,
    "audit": None,
}
_LONGEST_DAYS = 36_500
_TTL = re.compile(r"\bTTL\b.*?toIntervalDay\((\d+)\)", re.DOTALL)


def apply_retention(store: Store, days: Mapping[str, int | None] | None = None) -> list[str]:
    """Make every table keep its rows for as many days as told; the names of tables that changed.

    ``days`` is laid over the default of the store's shape; None as a value keeps for ever. Parts
    that are there are not rewritten: they go as a whole when the last of their rows is old enough.
    ``ConfigError`` for a table that has no retention or a number that makes no sense.
    """
    wanted: dict[str, int | None] = dict.fromkeys(SERVER_DAYS) if store.embedded else {}
    if not store.embedded:
        wanted.update(SERVER_DAYS)
    for table, number in (days or {}).items():
        if table not in SERVER_DAYS:
            raise ConfigError(f"{table} has no retention; there are {', '.join(SERVER_DAYS)}")
        if number is not None and not 1 <= number <= _LONGEST_DAYS:
            raise ConfigError(f"{table} cannot be kept {number} days: 1 to {_LONGEST_DAYS}")
        wanted[table] = number
    now = _kept(store)
    cluster = f" ON CLUSTER `{store.cluster}`" if store.cluster else ""
    changed = [table for table, number in wanted.items() if now[table] != number]
    for table in changed:
        number = wanted[table]
        ttl = (
            "REMOVE TTL"
            if number is None
            else f"MODIFY TTL toDateTime(log_ts) + toIntervalDay({number})"
        )
        store.command(
            f"ALTER TABLE {table}{cluster} {ttl}", settings={"materialize_ttl_after_modify": "0"}
        )
    return changed


def _kept(store: Store) -> dict[str, int | None]:
    """Days by table as they are now; ``ConfigError`` if the schema is not there."""
    rows = store.query(
        "SELECT name, create_table_query FROM system.tables WHERE database = currentDatabase() "
        "AND name IN {names:Array(String)}",
        {"names": list(SERVER_DAYS)},
    ).rows
    found = {name: _TTL.search(create) for name, create in rows}
    missing = SERVER_DAYS.keys() - found.keys()
    if missing:
        raise ConfigError(f"{store.name} has no {min(missing)}: run callmeter migrate")
    return {name: int(ttl[1]) if ttl else None for name, ttl in found.items()}
