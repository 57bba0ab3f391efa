"""The collector's answers, over HTTP."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator, Sequence

import orjson
import pytest
import zstandard
from aiohttp import web

from callmeter.collector.context import json_response, require_read
from callmeter.collector.health import UNREADY_S
from callmeter.collector.keys import KeyRing
from callmeter.collector.memory import MemoryAppender
from callmeter.errors import CannotWriteError
from callmeter.ids import uuid7
from callmeter.log.record import Appended, NewRecord
from callmeter.schema.envelope import (
    MAX_BYTES,
    Header,
    decode_header,
    encode,
    split_envelopes,
    split_lines,
)
from support.collecting import KEYS, envelope


async def test_several_envelopes_arrive_as_they_are_with_their_places(start) -> None:
    c = await start()
    bodies = [envelope(seq) for seq in range(5)]
    status, answer = await c.envelopes(b"".join(bodies))
    assert status == 200
    assert len(answer["results"]) == 5
    for body, result in zip(bodies, answer["results"], strict=True):
        record = c.appender.records[result["partition"]][result["offset"]]
        assert record.value == body
        assert record.key == result["source"].encode()
        assert record.topic == "events"
        assert result["seq"] == decode_header(split_lines(body)[0]).seq


@pytest.mark.parametrize(
    ("encoding", "pack"), [("gzip", gzip.compress), ("zstd", zstandard.compress)]
)
async def test_compressed_bodies(start, encoding: str, pack) -> None:
    c = await start()
    body = envelope(pad=5000)
    assert (await c.envelopes(pack(body), Content_Encoding=encoding))[0] == 200
    assert c.appender.values() == [body]
    status, answer = await c.envelopes(b"\x00" * 100, Content_Encoding=encoding)
    assert (status, answer["reason"]) == (400, "bad_encoding")
    assert (await c.envelopes(body[1:], Content_Encoding="br"))[0] == 415


async def test_lines_are_not_judged_here(start) -> None:
    c = await start()
    header = Header(source=uuid7(), seq=0, n=7, sent_us=1, project="p", v=99)
    odd = encode(Header(**{**{s: getattr(header, s) for s in header.__slots__}, "n": 1}), [b"junk"])
    assert (await c.envelopes(odd))[0] == 200
    assert c.appender.values() == [odd]


@pytest.mark.parametrize(
    ("bad", "line", "place"),
    [
        (b"", 1, 0),
        (b"hello\n", 1, 0),
        (b'{"kind":"metric"}\n', 1, 0),
        (b'{"v":1,"source":"x"}\n', 1, 0),
        (envelope() + b'{"v":1,"seq":"no"}\n{"kind":"x"}\n', 3, 1),
        (envelope() + envelope() + b'{"v":1,\n', 5, 2),
    ],
)
async def test_a_bad_header_is_named_and_nothing_is_appended(
    start, bad: bytes, line: int, place: int
) -> None:
    c = await start()
    status, answer = await c.envelopes(bad)
    assert (status, answer["reason"], answer["line"]) == (400, "bad_header", line)
    assert answer.get("envelope") == place
    assert "\n" not in answer["error"]
    assert c.appender.values() == []


async def test_keys(start) -> None:
    c = await start(keys=KEYS)
    assert (await c.envelopes(envelope()))[0] == 401
    assert c.headers["WWW-Authenticate"].startswith("Bearer")
    assert (await c.envelopes(envelope(), "wrong-key"))[0] == 401
    status, answer = await c.envelopes(envelope(), "read-key-1")
    assert (status, answer["reason"]) == (403, "read_key")
    assert (await c.envelopes(envelope(), "shop-key-1"))[0] == 200
    assert (await c.envelopes(envelope(project="search"), "both-key-1"))[0] == 200
    assert len(c.appender.values()) == 2


async def test_a_project_not_covered_is_named_and_nothing_is_appended(start) -> None:
    c = await start(keys=KEYS)
    source = uuid7()
    body = envelope() + envelope(7, project="search", source=source) + envelope()
    status, answer = await c.envelopes(body, "shop-key-1")
    assert (status, answer["envelope"], answer["source"], answer["seq"]) == (403, 1, source, 7)
    assert c.appender.values() == []


async def test_sizes(start) -> None:
    c = await start(max_body_bytes=2 * MAX_BYTES)
    fits = envelope(pad=MAX_BYTES - len(envelope()))
    assert len(fits) == MAX_BYTES
    assert (await c.envelopes(fits))[0] == 200
    status, answer = await c.envelopes(envelope() + fits.replace(b"xxx", b"xxxx", 1))
    assert (status, answer["envelope"], answer["reason"]) == (413, 1, "too_large")
    status, answer = await c.envelopes(fits + fits + envelope())
    assert (status, answer["reason"]) == (413, "body_too_large")
    bomb = gzip.compress(envelope(pad=20 * 2**20))
    assert (await c.envelopes(bomb, Content_Encoding="gzip"))[0] == 413
    assert len(c.appender.values()) == 1


async def test_a_body_without_a_length_is_bounded_too(start) -> None:
    c = await start(max_body_bytes=100_000)

    async def stream() -> AsyncIterator[bytes]:
        yield envelope()
        for _ in range(20):
            yield b"x" * 10_000

    async with c.session.post(c.url + "/v1/envelopes", data=stream()) as answer:
        assert answer.status == 413
    assert c.context.memory.held == 0


async def test_rates_are_by_key(start) -> None:
    c = await start(keys=KEYS, rate_envelopes_per_s=1.0, burst_envelopes=2.0)
    assert (await c.envelopes(envelope() * 1 + envelope(1) + envelope(2), "shop-key-1"))[0] == 200
    status, answer = await c.envelopes(envelope(), "shop-key-1")
    assert (status, answer["reason"]) == (429, "rate")
    assert int(c.headers["Retry-After"]) >= 1
    assert (await c.envelopes(envelope(), "both-key-1"))[0] == 200
    c.clock.advance(float(c.headers.get("Retry-After", 2)))
    assert (await c.envelopes(envelope(), "shop-key-1"))[0] == 200


async def test_bytes_are_counted_by_key_and_a_debt_is_told_before_a_body_is_read(start) -> None:
    c = await start(keys=KEYS, rate_bytes_per_s=1000.0)
    assert (await c.envelopes(envelope(pad=5000), "shop-key-1"))[0] == 200
    status, answer = await c.envelopes(b"not even looked at", "shop-key-1")
    assert (status, answer["reason"]) == (429, "rate")
    assert 1 <= int(c.headers["Retry-After"]) <= 5
    assert (await c.envelopes(envelope(pad=5000), "both-key-1"))[0] == 200
    c.clock.advance(5.0)
    assert (await c.envelopes(envelope(), "shop-key-1"))[0] == 200


async def test_while_it_stops_what_is_new_is_sent_away(start) -> None:
    c = await start()
    ended = []
    c.context.on_drain.append(lambda: ended.append(1))
    c.context.drain()
    status, answer = await c.envelopes(envelope())
    assert (status, answer["reason"]) == (503, "stopping")
    assert (c.headers["Retry-After"], c.headers["Connection"]) == ("2", "close")
    assert (await c.get("/readyz"))[0] == 503
    assert (await c.get("/healthz"))[0] == 200
    assert (await c.get("/metrics"))[0] == 200
    assert ended == [1]
    assert c.appender.values() == []


async def test_a_log_that_is_away_is_503_and_not_ready(start) -> None:
    c = await start()
    assert (await c.get("/readyz"))[0] == 200
    c.appender.away = "no broker answers"
    status, answer = await c.envelopes(envelope())
    assert (status, answer["error"]) == (503, "no broker answers")
    assert int(c.headers["Retry-After"]) >= 1
    assert (await c.get("/readyz"))[0] == 503
    assert (await c.get("/healthz"))[0] == 200
    c.clock.advance(UNREADY_S)
    assert (await c.get("/readyz"))[0] == 200
    c.appender.away = None
    assert (await c.envelopes(envelope()))[0] == 200


async def test_a_log_that_hangs_or_is_full_is_503_and_a_bug_is_500(start) -> None:
    class Odd(MemoryAppender):
        async def append(self, records: Sequence[NewRecord]) -> list[Appended]:
            if self.away == "hang":
                await asyncio.sleep(3600)
            if self.away == "full":
                raise CannotWriteError("no space left")
            raise RuntimeError("a bug with a secret")

    c = await start(Odd(), append_timeout_s=0.05)
    c.appender.away = "hang"
    assert (await c.envelopes(envelope()))[0] == 503
    c.appender.away = "full"
    assert (await c.envelopes(envelope()))[0] == 503
    c.appender.away = "bug"
    status, answer = await c.envelopes(envelope())
    assert status == 500
    assert "secret" not in str(answer)
    assert c.context.memory.held == 0


async def test_too_much_in_hand_is_503(start) -> None:
    gate = asyncio.Event()

    class Slow(MemoryAppender):
        async def append(self, records: Sequence[NewRecord]) -> list[Appended]:
            await gate.wait()
            return await super().append(records)

    c = await start(Slow(), max_bodies_bytes=1000)
    first = asyncio.create_task(c.envelopes(envelope(pad=900)))
    while not c.context.memory.held:
        await asyncio.sleep(0)
    second = envelope(pad=900)
    async with c.session.post(c.url + "/v1/envelopes", data=second) as answer:
        assert answer.status == 503
        assert answer.headers["Retry-After"]
    gate.set()
    assert (await first)[0] == 200


async def test_answers_wait_for_the_log(start) -> None:
    gate = asyncio.Event()

    class Slow(MemoryAppender):
        async def append(self, records: Sequence[NewRecord]) -> list[Appended]:
            await gate.wait()
            return await super().append(records)

    c = await start(Slow())
    posting = asyncio.create_task(c.envelopes(envelope()))
    assert (await c.get("/healthz"))[0] == 200
    assert not posting.done()
    gate.set()
    assert (await posting)[0] == 200


async def test_metrics_and_who_may_read_them(start) -> None:
    c = await start(keys=KEYS)
    await c.envelopes(envelope() + envelope(), "shop-key-1")
    await c.envelopes(b"bad", "shop-key-1")
    assert (await c.get("/metrics"))[0] == 401
    assert (await c.get("/metrics", Authorization="Bearer shop-key-1"))[0] == 403
    status, text = await c.get("/metrics", Authorization="Bearer read-key-1")
    assert status == 200
    assert "callmeter_collector_envelopes_total 2\n" in text
    assert 'callmeter_collector_refused_total{reason="bad_header"} 1\n' in text
    assert 'requests_total{route="/v1/envelopes",status="200"} 1\n' in text
    open_one = await start(keys=KeyRing.parse(["shop-key-1:shop"]))
    assert (await open_one.get("/metrics"))[0] == 200


async def test_unknown_routes_and_methods_are_json_too(start) -> None:
    c = await start()
    status, text = await c.get("/nowhere")
    assert (status, orjson.loads(text)["reason"]) == (404, "http")
    assert (await c.get("/v1/envelopes"))[0] == 405


async def test_further_routes_find_what_they_need(start) -> None:
    async def whoami(request: web.Request) -> web.Response:
        return json_response({"name": require_read(request).name})

    c = await start(keys=KEYS, extra=[lambda app: app.router.add_get("/whoami", whoami)])
    assert (await c.get("/whoami"))[0] == 401
    status, _ = await c.get("/whoami", Authorization="read-key-1")
    assert status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Host": "rebound.example:4248"},
    ],
)
async def test_without_keys_foreign_pages_are_refused(start, headers: dict[str, str]) -> None:
    c = await start()
    status, answer = await c.envelopes(envelope(), None, **headers)
    assert (status, answer["reason"]) == (403, "foreign")
    assert (await c.get("/healthz", **headers))[0] == 403
    assert (await c.envelopes(envelope(), None, Origin="http://localhost:4248"))[0] == 200
    keyed = await start(keys=KEYS)
    assert (await keyed.envelopes(envelope(), "shop-key-1", **headers))[0] == 200


async def test_every_envelope_of_a_long_body_is_found(start) -> None:
    c = await start()
    body = b"".join(envelope(seq, pad=20_000) for seq in range(200))
    status, answer = await c.envelopes(zstandard.compress(body), Content_Encoding="zstd")
    assert (status, len(answer["results"])) == (200, 200)
    assert sorted(c.appender.values()) == sorted(split_envelopes(body))
