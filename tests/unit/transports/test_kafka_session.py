"""A session of the Kafka transport: what ends it is told once, and to whoever waits for it."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

from callmeter.transports.kafka import SessionError, _Session


def session(loop: asyncio.AbstractEventLoop) -> _Session:
    return _Session(None, 8, False, loop, asyncio.Event(), loop.create_future())


def test_the_first_reason_ends_it() -> None:
    async def told() -> None:
        one = session(asyncio.get_running_loop())
        one.fail("the broker is away")
        one.fail(TimeoutError("later"))
        with pytest.raises(SessionError, match="the broker is away"):
            await one.broken

    asyncio.run(told())


def test_one_that_is_over_already_writes_nothing_to_the_host_s_log() -> None:
    said: list[dict[str, Any]] = []

    async def over() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: said.append(context))
        session(loop).fail("closed")
        gc.collect()
        await asyncio.sleep(0)

    asyncio.run(over())
    assert said == []


def test_a_source_keeps_its_partition() -> None:
    async def places() -> set[int]:
        one = session(asyncio.get_running_loop())
        return {one.partition_of("01890000-0000-7000-8000-000000000000") for _ in range(3)}

    assert asyncio.run(places()) <= set(range(8))
    assert len(asyncio.run(places())) == 1
