"""What the collector itself says of experiments and folders, as events in the log."""

from __future__ import annotations

from collections.abc import Sequence

from aiohttp import web

from callmeter.collector.context import Context
from callmeter.collector.own_sources import OwnSources
from callmeter.collector.trace import Recent
from callmeter.collector.trace_events import TraceEvent


class Statements:
    """One source for each project that something is said of."""

    def __init__(self, context: Context) -> None:
        self._sources = OwnSources(context)
        self._seen = Recent(context.clock)

    async def say(self, project: str, key: str, lines: Sequence[bytes]) -> None:
        """Return once the log has the events; a key that was said within ten minutes says nothing
        new. ``ApiError`` 503 if the log does not have them in time: they are still on their way.
        """
        seen = (project, ("statement", key))
        done = self._seen.find(seen) if key else None
        if done is None:
            source = self._sources.of(project)
            # Events of a source keep their order, so the last one's word is enough.
            done = [source.add(TraceEvent(("", ""), "", begins=False, line=x)) for x in lines][-1]
            if key:
                self._seen.remember(seen, done)
        await self._sources.stored(done)

    async def close(self) -> None:
        """Close every source cleanly, all within the drain's time."""
        await self._sources.close()


STATEMENTS: web.AppKey[Statements] = web.AppKey("callmeter_statements", Statements)
