"""What the collector itself says of experiments and folders, as events in the log."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from aiohttp import web

from callmeter.collector.context import ApiError, Context
from callmeter.collector.trace import Recent
from callmeter.collector.trace_events import TraceEvent
from callmeter.collector.trace_source import TraceSource


class Statements:
    """One source for each project that something is said of."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._sources: dict[str, TraceSource] = {}
        self._seen = Recent(context.clock)

    async def say(self, project: str, key: str, lines: Sequence[bytes]) -> None:
        """Return once the log has the events; a key that was said within ten minutes says nothing
        new. ``ApiError`` 503 if the log does not have them in time: they are still on their way.
        """
        seen = (project, ("statement", key))
        done = self._seen.find(seen) if key else None
        if done is None:
            source = self._source(project)
            # Events of a source keep their order, so the last one's word is enough.
            done = [source.add(TraceEvent(("", ""), "", begins=False, line=x)) for x in lines][-1]
            if key:
                self._seen.remember(seen, done)
        try:
            async with asyncio.timeout(self._context.config.append_timeout_s):
                await asyncio.shield(done)
        except TimeoutError:
            raise ApiError(
                503, "log_unreachable", "the log did not answer in time", retry_after_s=1
            ) from None

    async def close(self) -> None:
        """Close every source cleanly, all within the drain's time."""
        timeout_s = self._context.config.drain_timeout_s
        await asyncio.gather(*(source.close(timeout_s) for source in self._sources.values()))

    def _source(self, project: str) -> TraceSource:
        source = self._sources.get(project)
        if source is None or source.closed:
            source = self._sources[project] = TraceSource(self._context, project)
        return source


STATEMENTS: web.AppKey[Statements] = web.AppKey("callmeter_statements", Statements)
