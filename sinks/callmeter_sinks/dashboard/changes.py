"""Live pages: one stream of server-sent events a page, which says that something has changed.

The stream carries no figures. A page that hears ``changed`` asks for itself again, so there is one
way in which pages are made, and a slow reader misses nothing: it has one flag, not a queue.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

from aiohttp import web

from callmeter.errors import CallmeterError

logger = logging.getLogger("callmeter.dashboard")

MOST_STREAMS = 100
POLL_S = 0.25
ALIVE_S = 10.0
_AWAY_S = 3.0
#: What a browser waits before it comes again.
_RETRY_MS = 2000


class Changes:
    """Looks at the store while somebody listens, and wakes the listeners when it has changed.

    ``look`` gives a text that differs once something has come in. A page says with which one it was
    made, so what comes between the page and its stream is not missed.
    """

    def __init__(self, look: Callable[[], Awaitable[str]]) -> None:
        self._look = look
        self._listening: set[_Listener] = set()
        self._task: asyncio.Task[None] | None = None
        self._ending = asyncio.Event()

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """Answer one listener until it goes, or the server does; 503 if there are too many."""
        if self._ending.is_set() or len(self._listening) >= MOST_STREAMS:
            return web.Response(
                status=503, text="too many live pages are open", headers={"Retry-After": "10"}
            )
        response = web.StreamResponse(
            headers={
                "Content-Type": "text/event-stream",
                "Cache-Control": "no-store",
                "X-Accel-Buffering": "no",
            }
        )
        listener = _Listener(request.query.get("seen", ""))
        self._join(listener)
        try:
            await response.prepare(request)
            await response.write(f"retry: {_RETRY_MS}\nevent: open\ndata:\n\n".encode())
            while not self._ending.is_set():
                await response.write(await self._next(listener))
        except ConnectionError:
            return response  # the reader has gone: that is how streams end
        finally:
            self._leave(listener)
        return response

    def changed(self) -> None:
        """Wake every listener: something has changed that ``look`` does not see."""
        for each in self._listening:
            each.changed.set()

    def end(self) -> None:
        """End every stream: the server stops."""
        self._ending.set()
        self.changed()

    async def close(self) -> None:
        """Stop looking."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    @staticmethod
    async def _next(listener: _Listener) -> bytes:
        with contextlib.suppress(TimeoutError):  # nothing new: the stream says that it lives
            async with asyncio.timeout(ALIVE_S):
                await listener.changed.wait()
        said = b"event: changed\ndata:\n\n" if listener.changed.is_set() else b": alive\n\n"
        listener.changed.clear()
        return said

    def _join(self, listener: _Listener) -> None:
        self._listening.add(listener)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())

    def _leave(self, listener: _Listener) -> None:
        self._listening.discard(listener)

    async def _run(self) -> None:
        while self._listening:
            try:
                now = await self._look()
            except CallmeterError as exc:
                logger.warning("live pages wait for the store: %s", exc)
                await asyncio.sleep(_AWAY_S)
                continue
            for each in self._listening:
                if each.seen != now:
                    each.seen = now
                    each.changed.set()
            await asyncio.sleep(POLL_S)


class _Listener:
    """One stream: what its page has seen, and whether there is something newer to tell of."""

    def __init__(self, seen: str) -> None:
        self.seen = seen
        self.changed = asyncio.Event()
