"""Sinks: from the log into ClickHouse exactly once, and the questions one asks of it.

The names below are loaded when they are first used: importing this package imports no client of
ClickHouse.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from callmeter_sinks.clickhouse.migrate import check_schema, migrate
    from callmeter_sinks.clickhouse.opening import open_store
    from callmeter_sinks.clickhouse.store import PermanentStoreError, Store, StoreBusyError
    from callmeter_sinks.queries import Queries
    from callmeter_sinks.verify import VerifyResult

_HOMES = {
    "PermanentStoreError": "clickhouse.store",
    "Queries": "queries",
    "Store": "clickhouse.store",
    "StoreBusyError": "clickhouse.store",
    "VerifyResult": "verify",
    "check_schema": "clickhouse.migrate",
    "migrate": "clickhouse.migrate",
    "open_store": "clickhouse.opening",
}

__all__ = [
    "PermanentStoreError",
    "Queries",
    "Store",
    "StoreBusyError",
    "VerifyResult",
    "check_schema",
    "migrate",
    "open_store",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"callmeter_sinks.{home}"), name)
