"""The collector's own sources: one a project, and what becomes of who waits for the log."""

from __future__ import annotations

import asyncio

import pytest

from callmeter.clock import ManualClock
from callmeter.collector.config import CollectorConfig
from callmeter.collector.context import ApiError, Context
from callmeter.collector.memory import MemoryAppender
from callmeter.collector.own_sources import OwnSources
from callmeter.collector.trace_events import trace_event

BEGIN = {"event": "call_begin", "call_id": "call", "timestamp": 1.0}


def sources(timeout_s: float = 60.0) -> OwnSources:
    config = CollectorConfig(append_timeout_s=timeout_s)
    return OwnSources(Context(MemoryAppender(), config, ManualClock()))


async def test_a_project_keeps_its_source_until_that_is_closed() -> None:
    own = sources()
    first = own.of("shop")
    assert own.of("shop") is first
    assert own.of("search") is not first
    await own.stored(first.add(trace_event(BEGIN)))
    await own.close()
    assert first.closed
    assert own.of("shop") is not first
    await own.close()


async def test_a_source_that_fails_is_an_error_and_one_that_is_late_is_asked_for_again() -> None:
    own = sources(timeout_s=0.01)
    waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    with pytest.raises(ApiError) as late:
        await own.stored(waiting)
    assert (late.value.status, late.value.reason) == (503, "log_unreachable")
    assert not waiting.cancelled()  # it is still on its way
    waiting.cancel()
    with pytest.raises(ApiError) as failed:
        await own.stored(waiting)
    assert (failed.value.status, failed.value.reason) == (500, "internal")


async def test_a_request_that_ends_is_no_error_of_the_source() -> None:
    own = sources()
    waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    request = asyncio.create_task(own.stored(waiting))
    await asyncio.sleep(0)
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request
    assert not waiting.cancelled()
