"""Runs ``verify`` in the background of a server, and keeps what it said."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from callmeter.errors import CallmeterError
from callmeter_sinks.dashboard.reading import Reading
from callmeter_sinks.verify import VerifyResult, verify

logger = logging.getLogger("callmeter.dashboard")

#: A look at the page verifies again what is older than this, over the newest of the past; whoever
#: asks for it gets a day. An embedded engine answers one question at a time, so a run lets pages go
#: first.
AGAIN_AFTER = timedelta(minutes=10)
LOOKED = timedelta(hours=1)
#: The page that is looked at asks its own questions first.
_AFTER_PAGE_S = 0.5
ASKED = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Outcome:
    """One run: what it found, or the line in which it failed."""

    began: datetime
    ended: datetime
    since: datetime
    result: VerifyResult | None
    error: str = ""


class Verifying:
    """At most one run at a time; ``on_done`` is told when one ends."""

    def __init__(
        self, reading: Reading, now: Callable[[], datetime], on_done: Callable[[], None]
    ) -> None:
        self._reading = reading
        self._now = now
        self._on_done = on_done
        self._task: asyncio.Task[None] | None = None
        self.last: Outcome | None = None

    @property
    def running(self) -> bool:
        """Whether a run is under way."""
        return self._task is not None and not self._task.done()

    def wanted(self) -> None:
        """Somebody looks: run if there is no result of late."""
        fresh = self.last is not None and self._now() - self.last.ended < AGAIN_AFTER
        if not fresh:
            self.start(LOOKED, _AFTER_PAGE_S)

    def start(self, covered: timedelta = ASKED, after_s: float = 0.0) -> None:
        """Begin a run over that much of the past in ``after_s``, unless one is under way."""
        if not self.running:
            self._task = asyncio.create_task(self._run(covered, after_s))

    async def stop(self) -> None:
        """Let go of a run; the question in hand ends by itself."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self, covered: timedelta, after_s: float) -> None:
        await asyncio.sleep(after_s)
        began = self._now()
        since = began - covered
        try:
            result = await self._reading.behind_pages(lambda store: verify(store, since))
            self.last = Outcome(began, self._now(), since, result)
        except CallmeterError as exc:
            logger.warning("verify did not end: %s", exc)
            self.last = Outcome(began, self._now(), since, None, str(exc))
        self._on_done()
