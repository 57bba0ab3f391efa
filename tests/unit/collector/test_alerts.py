"""The route of alerts: positions, waiting, bounds, and who may see what."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from urllib.parse import quote

import pytest
from aiohttp import ClientSession, web

from callmeter.clock import ManualClock
from callmeter.collector import alerts as route
from callmeter.collector.alert_sources import SqliteAlertRecords
from callmeter.collector.alerts import alert_routes
from callmeter.collector.app import make_app, make_runner
from callmeter.collector.config import CollectorConfig
from callmeter.collector.context import CONTEXT
from callmeter.collector.keys import Grant, KeyRing, digest_of
from callmeter.collector.metrics import IN_FLIGHT
from callmeter.errors import UnreachableError
from callmeter.log.place import decode_place
from callmeter.log.record import NewRecord
from callmeter.log.sqlite_appender import SqliteAppender
from callmeter.log.sqlite_log import SqliteLog
from callmeter.schema.alerts import Alert, encode_alert
from support.alerting import alert

READ_KEYS = ("reads-all:*", "reads-shop:shop", "reads-two:shop,other")


class Served:
    """A collector over a log with two partitions; ``log`` may be added to."""

    def __init__(self, log: SqliteLog, app: web.Application, url: str, http: ClientSession) -> None:
        self.log = log
        self.app = app
        self.context = app[CONTEXT]
        self.clock: ManualClock = self.context.clock
        self._url = f"{url}/v1/alerts"
        self._http = http

    def say(self, alerts: Sequence[Alert]) -> None:
        self.log.append([NewRecord("alerts", a.rule.encode(), encode_alert(a)) for a in alerts])

    async def get(self, query: str = "", key: str | None = "reads-all") -> tuple[int, dict]:
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        async with self._http.get(self._url + query, headers=headers) as answer:
            return answer.status, await answer.json()

    async def page(self, query: str = "", key: str = "reads-all") -> dict:
        code, body = await self.get(query, key)
        assert code == 200, body
        return body


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    clock = ManualClock()
    log = SqliteLog(tmp_path / "log.db", partitions=2, clock=clock)
    config = CollectorConfig(port=0, keys=KeyRing.parse(["writes-shop:shop"], READ_KEYS))
    routes = [alert_routes(SqliteAlertRecords(log))]
    app = make_app(SqliteAppender(log), config, extra_routes=routes, clock=clock)
    runner = make_runner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port = runner.addresses[0][1]
    async with ClientSession() as session:
        yield Served(log, app, f"http://127.0.0.1:{port}", session)
        await runner.cleanup()
    log.close()


def ids(body: dict) -> list[str]:
    return [each["alert"]["id"] for each in body["alerts"]]


def some(count: int, first: int = 0, **fields: object) -> list[Alert]:
    return [alert(first + n, rule=f"r{n % 5}", **fields) for n in range(count)]


async def test_pages_go_on_where_the_last_one_ended(served: Served) -> None:
    said = some(25)
    served.say(said)
    found: list[str] = []
    body = await served.page("?limit=4")
    while True:
        found += ids(body)
        assert len(body["alerts"]) <= 4
        assert body["log"] == served.log.log_id
        if not body["more"]:
            break
        body = await served.page(f"?limit=4&after={body['position']}")
    assert sorted(found) == [each.id for each in said]
    served.say([alert(99)])
    assert ids(await served.page(f"?after={body['position']}")) == [alert(99).id]


async def test_an_alert_is_the_record_unchanged(served: Served) -> None:
    value = b'{ "v":1,"id":"i","kind":"gap","rule":"gap","severity":"info","at_us":1,'
    value += b'"message":"\\u00e9","log":"l","project":"shop","unknown":[1.50, null]}'
    served.log.append([NewRecord("alerts", b"gap", value, 1)])
    url, headers = served._url, {"Authorization": "Bearer reads-shop"}
    async with served._http.get(url, headers=headers) as answer:
        assert value in await answer.read()
        assert answer.headers["Cache-Control"] == "no-store"
    (each,) = (await served.page())["alerts"]
    assert (each["partition"], each["offset"], each["at_us"]) == (1, 0, served.clock.now_us())


async def test_since_is_a_time_or_ago(served: Served) -> None:
    served.say([alert(1)])
    served.clock.advance(3600)
    middle_us = served.clock.now_us()
    served.say([alert(2)])
    served.clock.advance(1800)
    for query in (f"?since={middle_us}", "?since=30m", "?since=1799s&project=shop"):
        wanted = [] if "1799s" in query else [alert(2).id]
        assert ids(await served.page(query)) == wanted
    assert len(ids(await served.page("?since=2h"))) == 2
    assert len(ids(await served.page("?since=0"))) == 2
    told = await served.page(f"?since={middle_us}&limit=0")
    assert (told["alerts"], told["more"]) == ([], True)
    assert ids(await served.page(f"?after={told['position']}")) == [alert(2).id]


async def test_a_key_sees_the_alerts_of_its_projects_alone(served: Served) -> None:
    said = {
        project: alert(n, project=project, rule=f"r{n}")
        for n, project in enumerate(("shop", "other", "shop*", "*", "", "shopping"))
    }
    served.say([*said.values()])
    served.log.append([NewRecord("alerts", b"x", b'{"secret', 0)])

    async def seen(key: str, query: str = "") -> set[str]:
        body = await served.page(query, key)
        told = [each["alert"] for each in body["alerts"] if each["alert"]]
        return {each.get("project", "") for each in told}

    assert await seen("reads-shop") == {"shop"}
    assert await seen("reads-two") == {"shop", "other"}
    assert await seen("reads-two", "?project=other") == {"other"}
    assert await seen("reads-all") == set(said)
    assert await seen("reads-all", "?project=other&project=shop") == {"shop", "other"}
    # What is no alert is told as such, to who reads everything.
    assert None in [each["alert"] for each in (await served.page())["alerts"]]
    assert all(each["alert"] for each in (await served.page("", "reads-shop"))["alerts"])
    code, body = await served.get("?project=other", "reads-shop")
    assert (code, body["reason"]) == (403, "project")


async def test_who_may_not_read_is_refused(served: Served) -> None:
    for key, code in ((None, 401), ("nobody-knows", 401), ("writes-shop", 403)):
        assert (await served.get("?wait=30", key))[0] == code


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("after=x", "bad_position"),
        ("after=", "bad_position"),
        ("after={log}:0.0.0", "bad_position"),  # two partitions
        ("after={log}:7", "bad_position"),  # beyond the end
        ("after={log}:0&after={log}:0", "bad_value"),
        ("after={log}:0&since=1h", "bad_value"),
        ("after=" + quote("{log}:0\r\nX-Evil: 1"), "bad_position"),
        ("since=1y", "bad_value"),
        ("since=-1", "bad_value"),
        ("since=" + "9" * 30, "bad_value"),
        ("limit=501", "bad_value"),
        ("limit=1.5", "bad_value"),
        ("limit=٣", "bad_value"),
        ("wait=31", "bad_value"),
        ("wait=-1", "bad_value"),
    ],
)
async def test_what_cannot_be_is_refused_in_a_line(served: Served, query: str, reason: str) -> None:
    code, body = await served.get("?" + query.replace("{log}", served.log.log_id))
    assert (code, body["reason"]) == (400, reason)
    assert "\n" not in body["error"]
    assert "Evil" not in body["error"]


async def test_a_position_of_another_log_is_told(served: Served) -> None:
    code, body = await served.get("?after=another:0")
    assert (code, body["reason"], body["log"]) == (409, "other_log", served.log.log_id)


async def test_what_retention_removed_is_told_and_where_to_go_on(served: Served) -> None:
    served.log.append([NewRecord("alerts", b"r", encode_alert(alert(n)), 0) for n in range(5)])
    before = (await served.page("?limit=2"))["position"]
    served.log.prune("alerts", below={0: 4})
    code, body = await served.get(f"?after={before}")
    assert (code, body["reason"], body["removed"]) == (410, "removed", 2)
    assert ids(await served.page(f"?after={body['position']}")) == [alert(4).id]
    # Who had read to the end has lost nothing when all is removed.
    end = (await served.page())["position"]
    served.log.prune("alerts", below={0: 5})
    assert (await served.page(f"?after={end}"))["alerts"] == []


async def test_waiting_ends_with_an_alert_for_the_caller(served: Served) -> None:
    place = (await served.page("?limit=0"))["position"]
    query = f"?wait=30&after={place}"
    waiting = asyncio.create_task(served.page(query, "reads-shop"))
    other = asyncio.create_task(served.page(query, "reads-two"))
    served.say([alert(1, project="other")])
    assert ids(await asyncio.wait_for(other, 20)) == [alert(1).id]
    assert not waiting.done()
    served.say([alert(2)])
    body = await asyncio.wait_for(waiting, 20)
    assert ids(body) == [alert(2).id]
    assert decode_place(body["position"]).offsets == served.log.end_offsets("alerts")


async def test_the_time_to_wait_ends_with_an_empty_answer(served: Served) -> None:
    served.say([alert(1, project="other")])
    body = await served.page("?wait=1", "reads-shop")
    assert (body["alerts"], body["more"]) == ([], False)
    assert decode_place(body["position"]).offsets == served.log.end_offsets("alerts")


async def test_waiting_ends_with_the_collector(served: Served) -> None:
    waiting = asyncio.create_task(served.page("?wait=30"))
    while not served.context.metrics.value(IN_FLIGHT):
        await asyncio.sleep(0.01)
    served.context.drain()
    assert (await asyncio.wait_for(waiting, 20))["alerts"] == []


async def test_a_key_that_is_revoked_while_it_waits_gets_nothing(served: Served) -> None:
    ring = served.context.config.keys
    filed = {digest_of("filed-key"): Grant("filed", frozenset({"shop"}), False, True)}
    ring.replace_filed(filed)
    waiting = asyncio.create_task(served.get("?wait=30", "filed-key"))
    while not served.context.metrics.value(IN_FLIGHT):
        await asyncio.sleep(0.01)
    ring.replace_filed({})
    served.say([alert(1)])
    code, body = await asyncio.wait_for(waiting, 20)
    assert (code, body["reason"]) == (401, "unauthorized")


async def test_an_answer_is_bounded(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(route, "MAX_ANSWER_BYTES", 1000)
    served.say(some(10, message="x" * 400))
    body = await served.page("?limit=500")
    assert len(body["alerts"]) == 2
    assert body["more"]
    monkeypatch.setattr(route, "MAX_SCANNED", 5)
    monkeypatch.setattr(route, "_PIECE", 5)
    served.say([alert(77, project="other")])
    turns, body = 0, await served.page("", "reads-all")
    place = (await served.page("?limit=0"))["position"]
    while True:
        body = await served.page(f"?after={place}&project=other")
        place, turns = body["position"], turns + 1
        if body["alerts"]:
            break
        assert body["more"]
    assert turns > 1
    assert ids(body) == [alert(77).id]


async def test_a_log_that_is_away_is_said_and_come_back_to(
    served: Served, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def away(_self: object) -> None:
        raise UnreachableError("kafka://secret-host:9092 is not reachable")

    monkeypatch.setattr(SqliteAlertRecords, "ends", away)
    for _ in range(3):
        code, body = await served.get()
        assert (code, body["reason"]) == (503, "log")
        assert "secret-host" not in str(body)
    assert caplog.text.count("secret-host") == 1
