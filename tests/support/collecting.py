"""A running collector with a log in a list and a clock that stands still, and one client of it."""

from __future__ import annotations

import io
from collections.abc import Callable

import orjson
from aiohttp import ClientSession

from callmeter.clock import ManualClock
from callmeter.collector.context import CONTEXT
from callmeter.collector.keys import KeyRing
from callmeter.collector.memory import MemoryAppender
from callmeter.ids import uuid7
from callmeter.schema.envelope import Header, encode

KEYS = KeyRing.parse(["shop-key-1:shop", "both-key-1:shop,search"], ["read-key-1"])


def envelope(
    seq: int = 0, *, project: str = "shop", source: str | None = None, pad: int = 0
) -> bytes:
    header = Header(source=source or uuid7(), seq=seq, n=1, sent_us=1, project=project)
    return encode(header, [b'{"kind":"annotation","text":"' + b"x" * pad + b'"}'])


class Collector:
    """A running collector and one client of it."""

    def __init__(self, url: str, appender: MemoryAppender, clock: ManualClock, app) -> None:
        self.url = url
        self.appender = appender
        self.clock = clock
        self.context = app[CONTEXT]
        self.session = ClientSession()

    async def post(
        self, path: str, body: bytes, key: str | None = None, **headers: str
    ) -> tuple[int, dict]:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if key is not None:
            sent["Authorization"] = f"Bearer {key}"
        async with self.session.post(
            self.url + path, data=io.BytesIO(body), headers=sent
        ) as answer:
            self.headers = answer.headers
            return answer.status, orjson.loads(await answer.read())

    async def envelopes(self, body: bytes, key: str | None = None, **headers: str):
        return await self.post("/v1/envelopes", body, key, **headers)

    async def trace(self, body: object, key: str | None = None, **headers: str):
        return await self.post("/trace", orjson.dumps(body), key, **headers)

    async def get(self, path: str, **headers: str) -> tuple[int, str]:
        async with self.session.get(self.url + path, headers=headers) as answer:
            return answer.status, await answer.text()


Start = Callable[..., object]
