"""How long rows are kept, counted from their arrival: a setting, so no migration.

Never by event time: the rows of a trace from last year would be gone at once. ``log_ts`` is the
log's time of the record that brought a row; of a rollup it is the latest of those that were added.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from datetime import timedelta

from callmeter.errors import ConfigError
from callmeter_sinks.clickhouse.store import Store

#: Days by table that a server begins with; None is for ever. Embedded keeps everything.
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
    "hist_models_1h": None,
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
#: Nothing is kept for less, and no more is a producer's clock ahead of the log's.
SURELY_KEPT = timedelta(days=1)
_TTL = re.compile(r"\bTTL\b.*?toIntervalDay\((\d+)\)", re.DOTALL)


def apply_retention(store: Store, days: Mapping[str, int | None] | None = None) -> list[str]:
    """Make tables keep their rows for as many days as told; the names of tables that changed.

    None as a value keeps for ever; a table that is not named stays as it is. Parts that are there
    are not rewritten: they go as a whole when the last of their rows is old enough.
    ``ConfigError`` for a table that has no retention or a number that makes no sense.
    """
    wanted: dict[str, int | None] = {}
    for table, number in (days or {}).items():
        if table not in SERVER_DAYS:
            raise ConfigError(f"{table} has no retention; there are {', '.join(SERVER_DAYS)}")
        if number is not None and not 1 <= number <= _LONGEST_DAYS:
            raise ConfigError(f"{table} cannot be kept {number} days: 1 to {_LONGEST_DAYS}")
        wanted[table] = number
    now = kept_days(store)
    return _set(store, {table: days for table, days in wanted.items() if now[table] != days})


def begin_retention(store: Store, tables: Collection[str]) -> list[str]:
    """Give new tables of a server their defaults; the names of those that have one.

    Called once for a table, by the migration that makes it: what is changed later stays changed.
    """
    if store.embedded:
        return []
    now = kept_days(store, only=set(tables) & SERVER_DAYS.keys())
    wanted = {table: SERVER_DAYS[table] for table, days in now.items() if days is None}
    return _set(store, {table: days for table, days in wanted.items() if days is not None})


def _set(store: Store, days: Mapping[str, int | None]) -> list[str]:
    cluster = f" ON CLUSTER `{store.cluster}`" if store.cluster else ""
    for table, number in days.items():
        ttl = (
            "REMOVE TTL"
            if number is None
            else f"MODIFY TTL toDateTime(log_ts) + toIntervalDay({number})"
        )
        store.command(
            f"ALTER TABLE {table}{cluster} {ttl}", settings={"materialize_ttl_after_modify": "0"}
        )
    return list(days)


def kept_days(store: Store, *, only: Collection[str] = SERVER_DAYS) -> dict[str, int | None]:
    """Days by table as they are now; ``ConfigError`` if one of the tables is not there."""
    rows = store.query(
        "SELECT name, create_table_query FROM system.tables WHERE database = currentDatabase() "
        "AND name IN {names:Array(String)}",
        {"names": list(only)},
    ).rows
    found = {name: _TTL.search(create) for name, create in rows}
    missing = set(only) - found.keys()
    if missing:
        raise ConfigError(f"{store.name} has no {min(missing)}: run callmeter migrate")
    return {name: int(ttl[1]) if ttl else None for name, ttl in found.items()}


def minutes_kept(store: Store) -> timedelta | None:
    """How long figures by the minute are kept, None for ever."""
    days = kept_days(store, only=("rollup_1m", "hist_1m")).values()
    return min((timedelta(days=each) for each in days if each is not None), default=None)
