"""The overview's figures are the report's, whatever they are read from."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest
from multidict import MultiDict

from callmeter_sinks.clickhouse.chdb_store import ChdbStore
from callmeter_sinks.clickhouse.retention import apply_retention, minutes_kept
from callmeter_sinks.dashboard import timeline
from callmeter_sinks.dashboard.access import Reader
from callmeter_sinks.dashboard.context import Asked
from callmeter_sinks.dashboard.pages import overview
from callmeter_sinks.dashboard.reading import Reading
from callmeter_sinks.dashboard.view import View
from callmeter_sinks.queries import Queries
from support.ledger import Book, us
from support.stores import land, migrated_chdb

NOW = datetime(2026, 3, 3, 12, 30, 15, tzinfo=UTC)
DAYS = "2026-03-01T11:45", "2026-03-03T08:10"
HOURS = "2026-03-02T09:10", "2026-03-02T10:01"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChdbStore]:
    """Three days of calls: failed, without price, without usage, no calls; and money apart."""
    book = Book()
    book.envelope(
        book.call(number=1, started="2026-03-01T11:50", cost="0.5", latency_us=4000),
        book.call(number=2, started="2026-03-02T09:15", model="mini", status="error", cost=None,
                  usage=None, latency_us=None),
        book.call(number=3, started="2026-03-02T09:59", model="llama", cost=None, user="ann"),
        book.call(number=4, started="2026-03-02T10:00", operation="program", usage=None, cost=None),
        book.call(number=5, started="2026-03-03T08:01", cost="0.125", service="other", user="ann"),
        book.call(number=6, started="2026-03-03T12:26", model="mini", cost="0.25", attempts=3),
        book.call(number=7, started="2026-03-03T12:30", model="mini", cost="0.25", latency_us=9000),
        {"kind": "cost", "ts_us": us("2026-03-03T10:00"), "started_us": us("2026-03-02T10:00"),
         "cost_pico": "7", "source": "bill", "provider": "azure", "model": "bill"},
    )  # fmt: skip
    book.checkpoint()
    with migrated_chdb(tmp_path_factory.mktemp("timeline") / "db") as opened:
        land(opened, book.take(), token="shop")
        yield opened


def view(**url: str) -> View:
    return View.of(MultiDict(url), Reader(), NOW)


@pytest.mark.parametrize(
    "url",
    [
        {},
        {"range": "1h"},
        {"range": "7d"},
        {"range": "30d", "project": "shop"},
        {"range": "all", "model": "mini"},
        {"range": "7d", "user": "ann"},
        {"range": "all", "project": "none"},
        {"since": DAYS[0], "until": DAYS[1]},
        {"since": HOURS[0], "until": HOURS[1]},
        {"since": HOURS[0], "until": HOURS[1], "service": "other"},
    ],
)
def test_a_report_added_up_from_windows_is_the_report(
    store: ChdbStore, url: dict[str, str]
) -> None:
    shown = view(**url)
    for top in (1, 8):
        report, sums = timeline.over_time(store, shown, "model", top)
        assert report == Queries(store).report(["model"], top=top, **shown.asked())  # type: ignore[arg-type]
    assert sum(each.calls for each in sums) == report.totals.calls
    assert sum(each.failures for each in sums) == report.totals.failures
    assert sum(each.cost for each in sums) == (report.totals.cost_usd or 0)
    assert [each.start for each in sums] == sorted(each.start for each in sums)


def asked(opened: ExitStack, store: ChdbStore, shown: View, now: datetime = NOW) -> Asked:
    reading = Reading(store)
    opened.callback(reading.close)
    dashboard: Any = SimpleNamespace(reading=reading)
    request: Any = SimpleNamespace(scheme="http", host="localhost")
    return Asked(dashboard, request, Reader(), shown, now)


@pytest.mark.parametrize("url", [{"range": "1h"}, {"range": "24h"}, {"range": "1h", "user": "ann"}])
def test_the_last_five_minutes_are_the_same_by_every_window(
    store: ChdbStore, url: dict[str, str]
) -> None:
    with ExitStack() as opened:
        page = asyncio.run(overview.page(asked(opened, store, view(**url))))
    expected = (0, 0) if "user" in url else (2, Decimal("0.5"))
    assert page.context["recent"] == expected


def test_what_minutes_have_forgotten_is_shown_by_the_hour(store: ChdbStore) -> None:
    shown = view(since=HOURS[0], until=HOURS[1])
    later = NOW + timedelta(days=40)

    def window(now: datetime = later) -> str:
        with ExitStack() as opened:
            return asyncio.run(overview.fitting(asked(opened, store, shown, now))).view.window

    assert (window(), minutes_kept(store)) == ("minute", None)
    apply_retention(store, {"hist_1m": 30})
    try:
        assert (window(), window(NOW)) == ("hour", "minute")
        assert minutes_kept(store) == timedelta(days=30)
    finally:
        apply_retention(store, {"hist_1m": None})
