"""Questions to the store from a server: off the loop, few at a time, the same one asked once."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from callmeter_sinks.clickhouse.store import Store
from callmeter_sinks.dashboard.turns import Turns
from callmeter_sinks.queries import Queries

T = TypeVar("T")

#: Key to when it was asked (monotonic seconds), and the answer.
_Table = OrderedDict[Hashable, tuple[float, asyncio.Future[Any]]]
_THREADS = 4
_MOST_KEPT = 512


class Reading:
    """Runs questions in threads of its own, so that pages starve nobody else's.

    Whoever asks what is being asked waits for that answer, and an answer is given again for
    ``keep_s``: a hundred viewers of a page cost the store one. Used from one event loop.
    """

    def __init__(self, store: Store, *, keep_s: float = 1.0) -> None:
        self.queries = Queries(store)
        self.turns = Turns()
        self._keep_s = keep_s
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="callmeter-dashboard")
        self._asked: _Table = OrderedDict()
        self._lasting: _Table = OrderedDict()

    async def ask(
        self,
        key: Hashable,
        question: Callable[[Queries], T],
        *,
        keep_s: float | None = None,
        lasting_s: float | None = None,
    ) -> T:
        """The answer, of now or of at most ``keep_s`` ago. Raises what the question raises.

        With ``lasting_s`` it is given again for so long, whatever has changed meanwhile.
        """
        now = time.monotonic()
        kept_s = self._keep_s if keep_s is None else min(keep_s, self._keep_s)
        table = self._asked
        if lasting_s is not None:
            kept_s, table = lasting_s, self._lasting
        held = table.get(key)
        if held is not None and (not held[1].done() or now - held[0] < kept_s):
            answer: T = await asyncio.shield(held[1])
            return answer
        loop = asyncio.get_running_loop()
        future = loop.run_in_executor(self._threads, question, self.queries)
        # Whoever asked first may go away before the answer comes: its error is then nobody's.
        future.add_done_callback(lambda done: done.cancelled() or done.exception())
        table[key] = (now, future)
        table.move_to_end(key)
        while len(table) > _MOST_KEPT:
            table.popitem(last=False)
        return await asyncio.shield(future)

    async def behind_pages(self, question: Callable[[Store], T]) -> T:
        """The answer to something long, which lets pages go first before each of its statements."""
        store = self.turns.behind(self.queries.store)
        return await asyncio.get_running_loop().run_in_executor(self._threads, question, store)

    def forget(self) -> None:
        """Give no answer again that was asked for until now: the store has changed since."""
        self._asked.clear()

    def close(self) -> None:
        """No more questions; those in hand are waited for, since the store closes next.

        What lets pages go first ends before its next statement.
        """
        self.turns.stop()
        self._threads.shutdown(wait=True, cancel_futures=True)
