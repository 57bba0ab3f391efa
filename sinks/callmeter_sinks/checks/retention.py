"""What retention may have removed: how far back each table still holds everything."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from callmeter_sinks.clickhouse.shards import tables_in
from callmeter_sinks.clickhouse.store import Store

_TTL = re.compile(r"\bTTL\b.*?toIntervalDay\((\d+)\)", re.DOTALL)
_DAY = timedelta(days=1)


def horizons(store: Store) -> dict[str, datetime]:
    """By table with a TTL: the day from whose beginning nothing can have been removed.

    TTL counts from arrival, and an event arrives after it happened but for clocks that are minutes
    ahead; a day of margin covers those, and the day under way.
    """
    answer = store.query(
        "SELECT name, create_table_query, now('UTC') FROM system.tables "  # noqa: S608
        f"WHERE database = {tables_in(store)}"
    )
    found = {}
    for name, statement, now in answer.rows:
        ttl = _TTL.search(statement)
        if ttl:
            kept_from = now.astimezone(UTC) - timedelta(days=int(ttl[1])) + _DAY
            found[name] = kept_from.replace(hour=0, minute=0, second=0, microsecond=0) + _DAY
    return found
