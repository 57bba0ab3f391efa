"""What Faust's consumer does otherwise for us: reads committed records, and makes no tasks for what
need not wait.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Coroutine, Generator, Iterable
from typing import Any

from faust.transport.drivers import aiokafka as driver
from mode.services import WaitResults

#: After so long it looks anyway, as Faust does.
_FULL_S = 1.0


class _CommittedThread(driver.AIOKafkaConsumerThread):
    """Faust reads uncommitted unless its own transactions are on; ours need committed records."""

    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        consumer._isolation_level = "read_committed"  # read by aiokafka when the consumer starts
        return consumer


class _Consumer(driver.Consumer):
    """Faust's consumer, with less ado for each record and no sleep where there is work."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._room: Any = asyncio.Event()  # Faust says it waits for its own kind of event alone

    def _new_consumer_thread(self) -> _CommittedThread:
        return _CommittedThread(self, loop=self.loop, beacon=self.beacon)

    async def wait_first(self, *coros: Any, **limits: Any) -> WaitResults:
        """The first of several to be done; what is done without waiting needs no task.

        Faust hands each record to its stream by this, against being suspended meanwhile: four
        tasks a record, three of them only to be cancelled, a tenth of what a worker costs
        (docs/decisions/0021). Nearly always there is room in the stream, and nothing to wait for.
        """
        first, *others = coros
        stopping = self._stopped.is_set() or self._crashed.is_set()
        if limits or stopping or not inspect.iscoroutine(first):
            return await super().wait_first(*coros, **limits)
        try:
            waits_for = first.send(None)
        except StopIteration as done:
            _forget(others)
            return WaitResults([first], [done.value], False)
        except BaseException:
            _forget(others)
            raise
        return await super().wait_first(_finish(first, waits_for), *others)

    def on_buffer_drop(self, tp: Any) -> None:
        """A stream has room again for records of a partition."""
        super().on_buffer_drop(tp)
        self._room.set()

    async def _wait_next_records(self, timeout: float) -> Any:  # noqa: ASYNC109 - Faust's own
        """Faust sleeps for a second when every partition's stream is full; they may be empty by
        the hundredth part of it.
        """
        if self.flow_active and self._buffered_partitions and not self._get_active_partitions():
            self._room.clear()
            await self.wait(self._room, timeout=_FULL_S)
            if not self._get_active_partitions():
                return {}, set()  # it asks again
        return await super()._wait_next_records(timeout)


class Transport(driver.Transport):
    """Faust's transport over aiokafka, with a consumer of ours."""

    Consumer = _Consumer


class _Begun:
    """A coroutine that was begun outside of a task, and waits for what it yielded then."""

    def __init__(self, coro: Coroutine[Any, Any, Any], waits_for: Any) -> None:
        self._coro = coro
        self._waits_for = waits_for

    def __await__(self) -> Generator[Any, Any, Any]:
        waits_for = self._waits_for
        while True:
            error: BaseException | None = None
            answer = None
            try:
                answer = yield waits_for
            except BaseException as exc:  # noqa: BLE001 - it is the coroutine's, cancellation too
                error = exc
            try:
                waits_for = self._coro.send(answer) if error is None else self._coro.throw(error)
            except StopIteration as done:
                return done.value


async def _finish(coro: Coroutine[Any, Any, Any], waits_for: Any) -> Any:
    return await _Begun(coro, waits_for)


def _forget(coros: Iterable[Any]) -> None:
    """Nobody will await these; without that Python complains of them."""
    for coro in filter(inspect.iscoroutine, coros):
        coro.close()
