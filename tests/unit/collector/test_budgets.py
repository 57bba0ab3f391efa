"""The budget route: answers, streams of changes, who may see what."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import pytest
from aiohttp import ClientSession, web

from callmeter.collector.app import make_app, make_runner
from callmeter.collector.budget_sources import SqliteBudgets
from callmeter.collector.budgets import budget_routes
from callmeter.collector.config import CollectorConfig
from callmeter.collector.keys import KeyRing
from callmeter.log.record import NewRecord
from callmeter.log.sqlite_appender import SqliteAppender
from callmeter.log.sqlite_log import SqliteLog
from callmeter.schema.budgets import Budget, encode_budget
from callmeter.schema.status import status_key

SHOP = Budget(id="shop", limit_pico="5", scope={"project": ["shop"]})
OTHER = Budget(id="other", limit_pico="5", scope={"project": ["other"]})
FLEET = Budget(id="fleet", limit_pico="5", per="project")
KEYS = KeyRing.parse(["writes-shop:shop", "writes-all:*"], ["reads-other:other"])


def define(budget: Budget) -> NewRecord:
    return NewRecord("budgets", budget.id.encode(), encode_budget(budget), 0)


def status(budget: str, entity: str = "", state: str = "ok") -> NewRecord:
    value = orjson.dumps({"budget": budget, "entity": entity, "state": state})
    return NewRecord("budget-status", status_key(budget, entity), value)


class Served:
    def __init__(self, log: SqliteLog, url: str, session: ClientSession) -> None:
        self.log = log
        self.url = f"{url}/v1/budgets/status"
        self._session = session

    async def get(self, query: str = "", key: str = "writes-all") -> tuple[int, dict]:
        headers = {"Authorization": f"Bearer {key}"}
        async with self._session.get(self.url + query, headers=headers) as response:
            return response.status, await response.json()

    async def names(self, query: str = "", key: str = "writes-all") -> list[str]:
        code, body = await self.get(query, key)
        assert code == 200
        return sorted(f"{each['budget']}|{each['entity']}" for each in body["statuses"])

    def stream(self, query: str = "&", key: str = "writes-all"):
        headers = {"Authorization": f"Bearer {key}"}
        return self._session.get(f"{self.url}?stream{query}", headers=headers)


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    log = SqliteLog(tmp_path / "log.db", partitions=2)
    log.append([define(SHOP), define(OTHER), define(FLEET)])
    log.append([status("shop"), status("other"), status("fleet", "shop"), status("fleet", "other")])
    config = CollectorConfig(port=0, keys=KEYS)
    routes = [budget_routes(SqliteBudgets(log))]
    runner = make_runner(make_app(SqliteAppender(log), config, extra_routes=routes))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    async with ClientSession() as session:
        yield Served(log, f"http://{host}:{port}", session)
        await runner.cleanup()
    log.close()


async def next_event(response) -> tuple[str, dict]:
    name = ""
    while True:
        line = (await asyncio.wait_for(response.content.readline(), 10)).decode().rstrip("\n")
        if line.startswith("event: "):
            name = line[7:]
        elif line.startswith("data: "):
            return name, orjson.loads(line[6:])


async def test_everything_that_stands_now(served):
    code, body = await served.get()
    assert code == 200
    assert body["log"] == served.log.log_id
    assert sorted(each["id"] for each in body["definitions"]) == ["fleet", "other", "shop"]
    assert len(body["statuses"]) == 4


async def test_one_budget_and_one_entity(served):
    assert await served.names("?budget=fleet") == ["fleet|other", "fleet|shop"]
    assert await served.names("?budget=fleet&entity=shop&budget=other") == ["fleet|shop"]
    assert await served.names("?budget=none") == []


async def test_a_key_sees_its_projects_and_what_limits_all(served):
    assert await served.names(key="writes-shop") == ["fleet|shop", "shop|"]
    assert await served.names(key="reads-other") == ["fleet|other", "other|"]
    code, body = await served.get(key="writes-shop")
    assert sorted(each["id"] for each in body["definitions"]) == ["fleet", "shop"]
    code, _ = await served.get(key="nobody-knows")
    assert code == 401


async def test_a_stream_begins_with_everything_and_goes_on_with_changes(served):
    async with served.stream("&budget=shop") as response:
        assert response.headers["Content-Type"] == "text/event-stream"
        name, body = await next_event(response)
        assert name == "snapshot"
        assert [each["budget"] for each in body["statuses"]] == ["shop"]
        served.log.append([status("other", state="exceeded"), status("shop", state="exceeded")])
        name, body = await next_event(response)
        assert (name, body["key"], body["value"]["state"]) == ("status", "shop|", "exceeded")
        served.log.append([NewRecord("budget-status", b"shop|", None)])
        name, body = await next_event(response)
        assert (name, body) == ("status", {"key": "shop|", "value": None})
        gone = Budget(id="shop", limit_pico="5", state="deleted")
        served.log.append([define(gone)])
        assert await next_event(response) == ("definition", {"key": "shop", "value": None})
    assert await served.names("?budget=shop") == []


async def test_a_stream_ends_with_the_collector(tmp_path):
    log = SqliteLog(tmp_path / "log.db", partitions=2)
    routes = [budget_routes(SqliteBudgets(log))]
    app = make_app(SqliteAppender(log), CollectorConfig(port=0), extra_routes=routes)
    runner = make_runner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port = runner.addresses[0][1]
    url = f"http://127.0.0.1:{port}/v1/budgets/status?stream"
    async with ClientSession() as session, session.get(url) as response:
        assert (await next_event(response))[0] == "snapshot"
        cleanup = asyncio.create_task(runner.cleanup())
        rest = await asyncio.wait_for(response.content.read(), 4)
        assert rest in (b"\n", b"\n: alive\n\n")
        await cleanup
    log.close()
