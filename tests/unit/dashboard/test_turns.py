"""Pages first: a verify in the background asks its next statement when no page is being made."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from typing import Any

import pytest
from aiohttp import ClientTimeout, web
from aiohttp.test_utils import TestClient, TestServer

from callmeter_sinks.clickhouse.store import Result, Store
from callmeter_sinks.dashboard import dashboard_routes
from callmeter_sinks.dashboard import turns as module
from callmeter_sinks.dashboard.context import DASHBOARD
from callmeter_sinks.dashboard.reading import Reading
from callmeter_sinks.dashboard.turns import StoppedError, Turns
from support.fake_store import FakeStore

#: How long a page waits for what must not come; without turns it comes at once.
MUST_NOT_COME_S = 0.1


class Heard(FakeStore):
    """Keeps the order in which statements were asked; the first of the background takes long."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[str] = []
        self.began = threading.Event()
        self.ends = threading.Event()
        self.second = threading.Event()
        self.of_page: float | None = None

    def query(
        self,
        sql: str,
        params: Mapping[str, Any] | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> Result:
        self.heard.append(sql)
        if sql == "background 1":
            self.began.set()
            assert self.ends.wait(60)
        if sql == "background 2":
            self.second.set()
        if self.of_page is not None and not sql.startswith("background"):
            self.ends.set()
            assert not self.second.wait(self.of_page)
        return Result((), [])


def long(store: Store) -> str:
    for number in (1, 2):
        store.query(f"background {number}")
    return "done"


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The background waits for pages as long as there are any."""
    monkeypatch.setattr(module, "PATIENCE_S", 600.0)


async def in_background(reading: Reading, store: Heard) -> asyncio.Task[str]:
    """``long``, with its first statement begun."""
    background = asyncio.create_task(reading.behind_pages(long))
    assert await asyncio.to_thread(store.began.wait, 60)
    return background


@pytest.mark.usefixtures("patient")
async def test_a_page_is_served_whole_between_two_statements_of_the_background() -> None:
    store = Heard()
    reading = Reading(store, keep_s=0)
    background = await in_background(reading, store)
    with reading.turns.page():
        store.ends.set()
        for number in (1, 2):
            await reading.ask(number, lambda queries, n=number: queries.store.query(f"page {n}"))
            assert not await asyncio.to_thread(store.second.wait, MUST_NOT_COME_S)
    assert await background == "done"
    assert store.heard == ["background 1", "page 1", "page 2", "background 2"]
    reading.close()


@pytest.mark.usefixtures("patient")
async def test_all_that_a_request_for_a_page_asks_comes_before_the_background() -> None:
    store = Heard()
    app = web.Application()
    dashboard_routes(store, keep_s=0)(app)
    async with TestClient(TestServer(app), timeout=ClientTimeout(total=60)) as client:
        background = await in_background(app[DASHBOARD].reading, store)
        store.of_page = MUST_NOT_COME_S
        async with client.get("/budgets") as answer:
            assert answer.status == 200
        assert await background == "done"
    first, *page, last = store.heard
    assert (first, last) == ("background 1", "background 2")
    assert len(page) > 2


def asking(turns: Turns) -> threading.Event:
    """Set once a thread of its own has given way."""
    asked = threading.Event()

    def ask() -> None:
        turns.give_way()
        asked.set()

    threading.Thread(target=ask, daemon=True).start()
    return asked


def test_the_background_waits_for_the_last_of_several_pages_and_its_panels() -> None:
    turns = Turns()
    with turns.page():
        with turns.page():
            asked = asking(turns)
        assert not asked.wait(module.QUIET_S + 0.1)
    assert asked.wait(60)


def test_pages_without_end_do_not_keep_the_background_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "PATIENCE_S", 0.01)
    turns = Turns()
    with turns.page():
        assert asking(turns).wait(60)


def test_what_is_no_question_is_the_stores_own() -> None:
    store = FakeStore()
    behind = Turns().behind(store)
    assert (behind.name, behind.embedded, behind.sharding) == (store.name, True, None)


@pytest.mark.usefixtures("patient")
async def test_a_server_that_stops_ends_the_background_before_its_next_statement() -> None:
    store = Heard()
    reading = Reading(store, keep_s=0)
    background = await in_background(reading, store)
    with reading.turns.page():
        store.ends.set()
        await asyncio.to_thread(reading.close)
    with pytest.raises(StoppedError):
        await background
    assert store.heard == ["background 1"]
