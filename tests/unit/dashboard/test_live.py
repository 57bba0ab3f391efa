"""Live streams: nothing is missed, nobody is queued for, and there is an end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator

import pytest
from aiohttp import ClientTimeout, web
from aiohttp.test_utils import TestClient, TestServer

from callmeter.errors import UnreachableError
from callmeter_sinks.dashboard import changes as module
from callmeter_sinks.dashboard.changes import Changes
from callmeter_sinks.dashboard.reading import Reading
from support.fake_store import FakeStore


class Store:
    """What streams look at: a version, or a store that is away."""

    def __init__(self) -> None:
        self.version = "1"
        self.away = False
        self.looks = 0
        self.refused = 0

    async def look(self) -> str:
        self.looks += 1
        if self.away:
            self.refused += 1
            raise UnreachableError("the store is away")
        return self.version


@pytest.fixture
async def live(monkeypatch) -> AsyncIterator[tuple[TestClient, Store, Changes]]:
    monkeypatch.setattr(module, "POLL_S", 0.01)
    monkeypatch.setattr(module, "_AWAY_S", 0.01)
    monkeypatch.setattr(module, "ALIVE_S", 0.05)
    store = Store()
    changes = Changes(store.look)
    app = web.Application()
    app.router.add_get("/stream", changes.stream)
    async with TestClient(TestServer(app), timeout=ClientTimeout(total=60)) as client:
        yield client, store, changes
        changes.end()
        await changes.close()


async def until(answer, wanted: bytes) -> list[bytes]:
    """Read on until this is said; what was said, this included."""
    said: list[bytes] = []
    async with asyncio.timeout(30):
        while True:
            line = await answer.content.readline()
            assert line, "the stream has ended"
            said.append(line.strip())
            if said[-1] == wanted:
                return said


async def test_a_change_is_told_once_and_then_the_stream_only_lives(live) -> None:
    client, store, _ = live
    async with client.get("/stream?seen=1") as answer:
        assert answer.content_type == "text/event-stream"
        await until(answer, b"event: open")
        await until(answer, b": alive")
        store.version = "2"
        await until(answer, b"event: changed")
        # The next thing said is that it lives: the same change is not told again.
        assert (await answer.content.readline()).strip() == b"data:"
        await answer.content.readline()
        assert (await answer.content.readline()).strip() == b": alive"


async def test_what_came_between_a_page_and_its_stream_is_told_at_once(live, monkeypatch) -> None:
    monkeypatch.setattr(module, "ALIVE_S", 60.0)  # so the first word after the head is the news
    client, store, _ = live
    async with client.get("/stream?seen=1") as first:
        await until(first, b"event: open")
        store.version = "2"
        await until(first, b"event: changed")
        async with client.get("/stream?seen=1") as late:
            said = await until(late, b"event: changed")
    assert [line for line in said if line] == [
        b"retry: 2000", b"event: open", b"data:", b"event: changed",
    ]  # fmt: skip


async def test_a_store_that_is_away_ends_no_stream(live, caplog) -> None:
    client, store, _ = live
    async with client.get("/stream?seen=1") as answer:
        await until(answer, b"event: open")
        store.away = True
        async with asyncio.timeout(30):
            while store.refused < 2:
                await asyncio.sleep(0.01)
        assert "live pages wait for the store: the store is away" in caplog.text
        assert b"event: changed" not in await until(answer, b": alive")
        store.away, store.version = False, "2"
        await until(answer, b"event: changed")


async def test_nobody_listens_and_nothing_is_looked_at(live) -> None:
    client, store, changes = live
    async with client.get("/stream?seen=1") as answer:
        await until(answer, b": alive")
    async with asyncio.timeout(30):
        while changes._task is not None and not changes._task.done():
            await asyncio.sleep(0.01)
    looked = store.looks
    await asyncio.sleep(0.05)
    assert store.looks == looked


async def test_streams_are_bounded_and_end_with_the_server(live, monkeypatch) -> None:
    client, _, changes = live
    monkeypatch.setattr(module, "MOST_STREAMS", 2)
    async with client.get("/stream") as one, client.get("/stream") as two:
        async with client.get("/stream") as third:
            assert third.status == 503
            assert third.headers["Retry-After"]
        changes.end()
        for answer in (one, two):
            async with asyncio.timeout(30):
                assert b"event: open" in await answer.read()
        async with client.get("/stream") as after:
            assert after.status == 503


async def test_the_same_question_is_asked_once_and_kept_until_forgotten() -> None:
    reading = Reading(FakeStore(), keep_s=60)
    asked: list[str] = []
    gate = threading.Event()

    def question(_queries: object) -> int:
        asked.append("x")
        assert gate.wait(30)
        return len(asked)

    waiting = [asyncio.create_task(reading.ask("a", question)) for _ in range(5)]
    await asyncio.sleep(0)
    gate.set()
    assert await asyncio.gather(*waiting) == [1] * 5
    assert await reading.ask("a", question) == 1
    assert await reading.ask("b", question) == 2
    assert await reading.ask("a", question, keep_s=0) == 3
    reading.forget()
    assert await reading.ask("b", question) == 4
    reading.close()


async def test_one_who_asks_may_go_and_the_others_get_the_answer() -> None:
    reading = Reading(FakeStore(), keep_s=60)
    gate = threading.Event()

    def question(_queries: object) -> str:
        assert gate.wait(30)
        return "answer"

    gone, stays = (asyncio.create_task(reading.ask("a", question)) for _ in range(2))
    await asyncio.sleep(0)
    gone.cancel()
    gate.set()
    assert await stays == "answer"
    assert gone.cancelled() or (await asyncio.gather(gone, return_exceptions=True))
    reading.close()


async def test_an_error_is_told_to_whoever_asked() -> None:
    reading = Reading(FakeStore(), keep_s=0)

    def question(_queries: object) -> None:
        raise UnreachableError("away")

    for _ in range(2):
        with pytest.raises(UnreachableError):
            await reading.ask("a", question)
    reading.close()
