"""The Monitor hook's posts: ``POST /trace``."""

from __future__ import annotations

import asyncio

import orjson
import pytest
from aiohttp import ClientSession, web

from callmeter.collector.app import make_app, make_runner
from callmeter.collector.config import CollectorConfig
from callmeter.collector.keys import KeyRing
from callmeter.collector.memory import MemoryAppender
from callmeter.collector.trace import REMEMBER_S
from callmeter.schema.envelope import (
    Header,
    decode_header,
    split_lines,
)

BEGIN = {
    "event": "call_begin",
    "call_id": "c1",
    "module_name": "m",
    "module_description": "",
    "timestamp": 1.0,
    "inputs": None,
}
END = {
    **{k: v for k, v in BEGIN.items() if k != "inputs"},
    "event": "call_end",
    "duration": 0.5,
    "outputs": None,
    "exception": None,
    "success": True,
}


def traces(appender: MemoryAppender) -> list[tuple[Header, list[dict]]]:
    return [
        (decode_header(lines[0]), [orjson.loads(line) for line in lines[1:]])
        for lines in map(split_lines, appender.values())
    ]


async def test_the_monitor_hook_s_posts_become_one_source_s_envelopes(start) -> None:
    c = await start()
    assert await c.trace(BEGIN) == (200, {"accepted": True})
    assert await c.trace(END) == (200, {"accepted": True})
    got = traces(c.appender)
    assert [header.seq for header, _ in got] == [0, 1]
    assert {header.source for header, _ in got} == {got[0][0].source}
    assert [header.accepted for header, _ in got] == [1, 2]
    assert [e["kind"] for _, events in got for e in events] == ["call_begin", "call_end"]
    assert got[0][0].project == "default"


async def test_a_trace_counts_once_within_ten_minutes(start) -> None:
    c = await start()
    await c.trace(BEGIN)
    assert await c.trace(BEGIN) == (200, {"accepted": False})
    assert await c.trace({**BEGIN, "call_id": "c2"}) == (200, {"accepted": True})
    c.clock.advance(REMEMBER_S - 1)
    assert await c.trace(BEGIN) == (200, {"accepted": False})
    c.clock.advance(2)
    assert await c.trace(BEGIN) == (200, {"accepted": True})
    assert len(traces(c.appender)) == 3


async def test_traces_go_to_their_key_s_project(start) -> None:
    ring = KeyRing.parse(["one-project:shop", "two-projects:a,b", "every-project:*"])
    c = await start(keys=ring, trace_project="b")
    assert (await c.trace(BEGIN))[0] == 401
    assert (await c.trace(BEGIN, None, Authorization="one-project"))[0] == 200
    assert (await c.trace(BEGIN, "two-projects"))[0] == 200
    assert (await c.trace(END, "every-project"))[0] == 200
    got = traces(c.appender)
    assert sorted(header.project for header, _ in got) == ["b", "b", "shop"]
    assert len({header.source for header, _ in got}) == 2
    other = await start(keys=ring, trace_project="elsewhere")
    assert (await other.trace(BEGIN, "two-projects"))[0] == 403


async def test_many_traces_at_once_share_envelopes_and_leave_no_hole(start) -> None:
    c = await start()
    posts = [c.trace({**BEGIN, "call_id": f"call {n}"}) for n in range(200)]
    answers = await asyncio.gather(*posts)
    assert {status for status, _ in answers} == {200}
    got = sorted(traces(c.appender), key=lambda item: item[0].seq)
    assert [header.seq for header, _ in got] == list(range(len(got)))
    assert sum(header.n for header, _ in got) == 200
    assert got[-1][0].accepted == 200


async def test_a_trace_that_the_log_did_not_take_in_time_counts_once_later(start) -> None:
    c = await start(append_timeout_s=0.05)
    c.appender.away = "gone"
    status, answer = await c.trace(BEGIN)
    assert (status, answer["reason"]) == (503, "log_unreachable")
    c.appender.away = None
    for _ in range(600):
        status, answer = await c.trace(BEGIN)
        if status == 200:
            break
    assert (status, answer) == (200, {"accepted": False})
    assert [[e["call_id"] for e in events] for _, events in traces(c.appender)] == [
        [traces(c.appender)[0][1][0]["call_id"]]
    ]


async def test_a_source_of_traces_ends_with_a_last_word() -> None:
    log = MemoryAppender()
    app = make_app(log, CollectorConfig(drain_timeout_s=5.0))
    runner = make_runner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/trace"
    async with ClientSession() as session, session.post(url, json=BEGIN) as answer:
        assert answer.status == 200
    await runner.cleanup()
    (first, _), (last, events) = traces(log)
    assert (first.last, last.last) == (False, True)
    assert (events[0]["kind"], events[0]["open"]) == ("heartbeat", 1)
    assert (last.seq, last.accepted) == (1, 2)
    assert not log.closed  # the appender is its maker's


@pytest.mark.parametrize(
    ("body", "reason"),
    [(b"not json", "bad_json"), (b"[]", "bad_value"), (b'{"event":"x"}', "bad_value")],
)
async def test_what_is_no_trace_is_400(start, body: bytes, reason: str) -> None:
    c = await start()
    status, answer = await c.post("/trace", body)
    assert (status, answer["reason"]) == (400, reason)
    assert (await c.post("/trace", b" " * 2**21))[0] == 413
    assert c.appender.values() == []
