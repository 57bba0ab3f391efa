"""Connections are bounded in number, and in the time they take to ask for something."""

from __future__ import annotations

import asyncio

from callmeter.collector.metrics import CONNECTIONS, DROPPED_CONNECTIONS


async def connected(collector, count: int) -> None:
    async with asyncio.timeout(60):
        while collector.context.metrics.value(CONNECTIONS) != count:
            await asyncio.sleep(0.01)


async def test_too_many_connections_are_closed_at_once(start) -> None:
    c = await start(max_connections=3, header_timeout_s=600.0)
    port = int(c.url.rpartition(":")[2])
    held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
    await connected(c, 3)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    async with asyncio.timeout(60):
        assert await reader.read() == b""
    writer.close()
    assert c.context.metrics.value(DROPPED_CONNECTIONS, reason="too_many") == 1
    assert c.context.metrics.value(CONNECTIONS) == 3
    for _, each in held:
        each.close()
    await connected(c, 0)
    assert (await c.get("/healthz"))[0] == 200


async def test_headers_that_never_end(start) -> None:
    c = await start(header_timeout_s=1.0)
    port = int(c.url.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    async with asyncio.timeout(60):
        assert (await reader.readline()).split()[1] == b"200"  # in time, and kept open
        writer.write(b"GET /healthz HTTP/1.1\r\nX-Slow: ")
        await reader.read()
    writer.close()
    assert c.context.metrics.value(DROPPED_CONNECTIONS, reason="slow_headers") == 1
    assert (await c.get("/healthz"))[0] == 200
