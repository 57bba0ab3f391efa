"""How far back the newest calls are looked for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest
from multidict import MultiDict

from callmeter_sinks.clickhouse.store import Result, Store
from callmeter_sinks.dashboard import listing
from callmeter_sinks.dashboard.access import Reader
from callmeter_sinks.dashboard.view import View

NOW = datetime(2026, 3, 5, 12, 34, 56, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
LOOKS = [NOW.replace(minute=0, second=0) - back for back in (HOUR, DAY)]
ANYONE = Reader(None)


class Calls:
    """A store of calls at some times, which notes since when it was asked."""

    def __init__(self, *started: datetime) -> None:
        self._started = sorted(started, reverse=True)
        self.looks: list[datetime | None] = []

    def query(self, sql: str, params: Mapping[str, Any]) -> Result:
        def bound(condition: str) -> datetime | None:
            named = re.search(rf"started_at {condition} fromUnixTimestamp64Micro\({{(\w+):", sql)
            return named and datetime.fromtimestamp(params[named[1]] / 1_000_000, UTC)

        since, until = bound(">="), bound("<")
        self.looks.append(since)
        (limit,) = (value for name, value in params.items() if f"LIMIT {{{name}:" in sql)
        return Result(
            (),
            [
                ("", "", at, "ok", "", "chat", "", "", "", "", None, None, None, False, None)
                for at in self._started
                if (since is None or at >= since) and (until is None or at < until)
            ][:limit],
        )


def found(calls: Calls, limit: int = 2, before: datetime | None = None, **url: str) -> list[Any]:
    view = View.of(MultiDict(url), ANYONE, NOW)
    rows = listing.newest(cast("Store", calls), view, before=before, now=NOW, limit=limit)
    return [row.started_at for row in rows]


def test_the_last_hour_is_enough_if_it_holds_a_page() -> None:
    ahead, recent = NOW + 5 * HOUR, NOW - timedelta(minutes=5)
    calls = Calls(ahead, recent, NOW - DAY)
    assert found(calls) == [ahead, recent]
    assert calls.looks == LOOKS[:1]


def test_a_day_is_looked_at_next_and_then_the_whole_view() -> None:
    recent, older, oldest = NOW - timedelta(minutes=5), NOW - 3 * HOUR, NOW - 40 * DAY
    calls = Calls(recent, older, oldest)
    assert found(calls, range="30d") == [recent, older]
    assert calls.looks == LOOKS
    calls = Calls(recent, oldest)
    assert found(calls, range="all") == [recent, oldest]
    assert calls.looks == [*LOOKS, None]


@pytest.mark.parametrize("limit", [1, 2])
def test_no_call_outside_of_the_view_is_looked_at(limit: int) -> None:
    calls = Calls(NOW - timedelta(minutes=20), NOW - timedelta(minutes=5))
    assert found(calls, limit, range="15m") == [NOW - timedelta(minutes=5)]
    assert calls.looks == [NOW.replace(second=0) - timedelta(minutes=15)]


def test_older_pages_are_looked_for_before_their_time() -> None:
    before = NOW - 10 * DAY
    rows = [before - timedelta(minutes=n) for n in range(3)]
    calls = Calls(NOW, *rows)
    assert found(calls, before=before, range="30d") == rows[1:]
    assert calls.looks == [before.replace(minute=0, second=0) - HOUR]
    assert found(Calls(NOW, *rows), before=NOW - 2 * DAY) == []
