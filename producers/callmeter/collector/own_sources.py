"""The collector's own sources, one for each project, for what it writes in others' names."""

from __future__ import annotations

import asyncio

from callmeter.collector.context import ApiError, Context
from callmeter.collector.trace_source import TraceSource


class OwnSources:
    """Opens a project's source when it is first needed, and again when it was idle and closed."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._sources: dict[str, TraceSource] = {}

    def of(self, project: str) -> TraceSource:
        """The project's, open."""
        source = self._sources.get(project)
        if source is None or source.closed:
            source = self._sources[project] = TraceSource(self._context, project)
        return source

    async def stored(self, done: asyncio.Future[None]) -> None:
        """Return once the log has what ``TraceSource.add`` took. ``ApiError`` 503 if not in time:
        it is then still on its way and will count once; 500 if the source has failed.
        """
        try:
            async with asyncio.timeout(self._context.config.append_timeout_s):
                await asyncio.shield(done)
        except TimeoutError:
            raise ApiError(
                503, "log_unreachable", "the log did not answer in time", retry_after_s=1
            ) from None
        except asyncio.CancelledError:
            if not done.cancelled():
                raise  # it is this request that ends, not the source
            raise ApiError(500, "internal", "the collector failed") from None

    async def close(self) -> None:
        """Close every source cleanly, all within the drain's time."""
        timeout_s = self._context.config.drain_timeout_s
        await asyncio.gather(*(source.close(timeout_s) for source in self._sources.values()))
