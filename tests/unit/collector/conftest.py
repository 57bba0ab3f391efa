"""Collectors for the tests of this folder."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from callmeter.clock import ManualClock
from callmeter.collector.app import make_app, make_runner
from callmeter.collector.config import CollectorConfig
from callmeter.collector.memory import MemoryAppender
from support.collecting import Collector, Start


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    stops = []

    async def run(appender: MemoryAppender | None = None, extra=(), **config) -> Collector:
        log, clock = appender or MemoryAppender(), ManualClock()
        app = make_app(log, CollectorConfig(**config), extra_routes=extra, clock=clock)
        runner = make_runner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        collector = Collector(f"http://127.0.0.1:{port}", log, clock, app)
        stops.append((runner, collector.session))
        return collector

    yield run
    for runner, session in stops:
        await session.close()
        await runner.cleanup()
