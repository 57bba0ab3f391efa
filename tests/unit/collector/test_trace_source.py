"""The collector's own source: heartbeats, open calls, a clean end when idle, drops when full."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import orjson
import pytest

from callmeter.clock import ManualClock
from callmeter.collector import trace_source
from callmeter.collector.config import CollectorConfig
from callmeter.collector.context import ApiError, Context
from callmeter.collector.memory import MemoryAppender
from callmeter.collector.trace_events import TraceEvent, trace_event
from callmeter.collector.trace_source import IDLE_S, MAX_OPEN_S, TraceSource
from callmeter.schema.envelope import Header, decode_header, split_lines


def event(call: int, *, begins: bool = True) -> TraceEvent:
    kind = "call_begin" if begins else "call_end"
    return trace_event({"event": kind, "call_id": f"call {call}", "timestamp": 1.0})


class Setup:
    def __init__(self) -> None:
        self.log = MemoryAppender()
        self.clock = ManualClock()
        self.context = Context(self.log, CollectorConfig(), self.clock)
        self.source = TraceSource(self.context, "p", heartbeat_s=0.01)

    def sent(self) -> list[tuple[Header, list[dict]]]:
        return [
            (decode_header(lines[0]), [orjson.loads(line) for line in lines[1:]])
            for lines in map(split_lines, self.log.values())
        ]

    def beats(self) -> list[dict]:
        return [e for _, events in self.sent() for e in events if e["kind"] == "heartbeat"]

    async def until(self, what: Callable[[], object]) -> None:
        async with asyncio.timeout(20):
            while not what():
                await asyncio.sleep(0.005)


@pytest.fixture
async def setup() -> AsyncIterator[Setup]:
    made = Setup()
    yield made
    await made.source.close(1.0)


async def test_heartbeats_tell_of_open_calls(setup: Setup) -> None:
    for call in (1, 2):
        await setup.source.add(event(call))
    await setup.source.add(event(2, begins=False))
    await setup.until(lambda: any(b["open"] == 1 for b in setup.beats()))
    setup.clock.advance(31.0)
    await setup.until(lambda: any(b.get("open_long") for b in setup.beats()))
    assert setup.beats()[-1]["open_long"] == [event(1).call_id]


async def test_an_idle_source_ends_cleanly_but_not_while_a_call_is_open(setup: Setup) -> None:
    await setup.source.add(event(1))
    setup.clock.advance(IDLE_S)
    count = len(setup.beats())
    await setup.until(lambda: len(setup.beats()) > count + 1)
    assert not setup.source.closed
    setup.clock.advance(MAX_OPEN_S)  # nobody waits for that end any longer
    await setup.until(lambda: setup.source.closed)
    await setup.until(lambda: setup.sent()[-1][0].last)
    headers = [header for header, _ in setup.sent()]
    assert [header.seq for header in headers] == list(range(len(headers)))
    assert [header.last for header in headers].count(True) == 1
    assert headers[-1].accepted == sum(header.n for header in headers)


async def test_a_full_queue_refuses_and_its_drops_are_told_later(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trace_source, "MAX_PENDING", 3)
    setup.log.away = "gone"
    first = setup.source.add(event(0))
    await setup.until(lambda: setup.context.log_failed_s is not None)  # it is being sent
    waiting = [setup.source.add(event(call)) for call in (1, 2, 3)]
    with pytest.raises(ApiError) as caught:
        setup.source.add(event(4))
    assert caught.value.status == 503
    setup.log.away = None
    await asyncio.gather(first, *waiting)
    await setup.until(lambda: setup.sent()[-1][0].dropped)
    assert setup.sent()[-1][0].dropped == {"queue_full": 1}
    begun = [e for _, events in setup.sent() for e in events if e["kind"] == "call_begin"]
    assert len(begun) == 1 + len(waiting)
