"""Faust's consumer as we use it: what need not wait is not made a task, what waits can be cut off,
and a full stream is not slept over.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest
from faust.types import TP

from callmeter.log.kafka_settings import KafkaSettings
from callmeter_processors.runtime.faust_app import make_app


class Deliveries:
    """What Faust calls for a record, and how far it came."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.room = asyncio.Event()

    async def at_once(self) -> str:
        self.seen.append("delivered")
        return "answer"

    async def later(self) -> str:
        self.seen.append("began")
        try:
            await self.room.wait()
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            self.seen.append("cut off")
            raise
        self.seen.append("delivered")
        return "answer"

    async def wrong(self) -> str:
        raise LookupError("no such channel")

    async def wrong_later(self) -> str:
        await self.room.wait()
        raise LookupError("no such channel")


async def _nothing(*_: Any) -> None:
    return None


@asynccontextmanager
async def made() -> AsyncIterator[tuple[Any, Deliveries]]:
    loop = asyncio.get_running_loop()
    settings = KafkaSettings.from_url("kafka://127.0.0.1:9", {})
    app = make_app(
        settings, group="g", partitions=1, session_timeout_s=10, buffer_records=10, loop=loop
    )
    consumer = app.transport.create_consumer(
        callback=_nothing, on_partitions_revoked=_nothing, on_partitions_assigned=_nothing
    )
    try:
        yield consumer, Deliveries()
    finally:
        consumer._thread.thread_loop.close()  # its thread was never started


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, 30))


def test_a_record_that_its_stream_takes_at_once_needs_no_task() -> None:
    async def test() -> None:
        async with made() as (consumer, deliveries):
            suspended = asyncio.Event()
            tasks: list[Any] = []
            loop = asyncio.get_running_loop()
            loop.set_task_factory(
                lambda loop, coro, **more: tasks.append(coro) or asyncio.Task(coro, loop=loop)
            )
            delivery = deliveries.at_once()
            found = await consumer.wait_first(delivery, suspended.wait())
            assert (found.done, found.results, found.stopped) == ([delivery], ["answer"], False)
            assert deliveries.seen == ["delivered"]
            assert tasks == []

    run(test())


def test_a_record_that_waits_for_room_is_delivered_when_there_is_some() -> None:
    async def test() -> None:
        async with made() as (consumer, deliveries):
            waiting = asyncio.ensure_future(
                consumer.wait_first(deliveries.later(), asyncio.Event().wait())
            )
            while not deliveries.seen:
                await asyncio.sleep(0)
            assert not waiting.done()
            deliveries.room.set()
            found = await waiting
            assert found.results == ["answer"]
            assert deliveries.seen == ["began", "delivered"]

    run(test())


def test_a_record_that_waits_is_cut_off_by_a_suspension() -> None:
    async def test() -> None:
        async with made() as (consumer, deliveries):
            suspended = asyncio.Event()
            waiting = asyncio.ensure_future(
                consumer.wait_first(deliveries.later(), suspended.wait())
            )
            while not deliveries.seen:
                await asyncio.sleep(0)
            suspended.set()
            found = await waiting
            assert found.results == [True]
            while len(deliveries.seen) < 2:
                await asyncio.sleep(0)
            assert deliveries.seen == ["began", "cut off"]

    run(test())


@pytest.mark.parametrize("name", ["wrong", "wrong_later"])
def test_an_error_of_the_delivery_is_its_caller_s(name: str) -> None:
    async def test() -> None:
        async with made() as (consumer, deliveries):
            delivery = getattr(deliveries, name)()
            deliveries.room.set()
            with pytest.raises(LookupError):
                await consumer.wait_first(delivery, asyncio.Event().wait())

    run(test())


def test_a_consumer_that_has_stopped_delivers_nothing_more() -> None:
    async def test() -> None:
        async with made() as (consumer, deliveries):
            consumer._stopped.set()
            found = await consumer.wait_first(deliveries.later(), asyncio.Event().wait())
            assert found.stopped
            assert "delivered" not in deliveries.seen

    run(test())


def test_a_full_stream_is_fetched_for_as_soon_as_it_has_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Faust sleeps for a second when it finds no partition to fetch for."""

    async def test() -> None:
        async with made() as (consumer, _):
            partition = TP("t", 0)
            fetched: list[set[Any]] = []

            async def getmany(active_partitions: set[Any], timeout: float) -> dict[Any, Any]:
                fetched.append(set(active_partitions))
                return {}

            async def sleep(seconds: float) -> None:
                raise AssertionError("slept while there was work")

            monkeypatch.setattr(consumer, "_getmany", getmany)
            monkeypatch.setattr(consumer, "sleep", sleep)
            monkeypatch.setattr(consumer.app, "in_recovery", False, raising=False)
            consumer._active_partitions = {partition}
            consumer.resume_flow()
            consumer.on_buffer_full(partition)
            waiting = asyncio.ensure_future(consumer._wait_next_records(1.0))
            for _ in range(5):
                await asyncio.sleep(0)
            assert fetched == []
            consumer.on_buffer_drop(partition)
            await waiting
            assert fetched == [{partition}]

    run(test())
