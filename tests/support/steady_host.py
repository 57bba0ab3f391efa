"""A program under way: a thread that meters at a steady rate and must never notice the backend."""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import Any, Self

from callmeter.sdk.client import Client
from callmeter.sdk.results import FlushResult
from callmeter.settings import resolve

#: What the cap may be exceeded by: the estimate is of means, and a batch may be under way.
SLACK = 1.25


class SteadyHost:
    """Makes metrics ``m0``, ``m1``, …; ``made`` of them. An exception in its thread is kept and
    raised in the end. ``most_bytes`` is the most memory that the client ever told.
    """

    def __init__(self, url: str, *, per_s: int = 4_000, **settings: Any) -> None:
        given = {"heartbeat_s": 0.0, "handle_signals": False, **settings}
        self.client = Client(resolve({"url": url, **given}, environ={}))
        self.made = 0
        self.most_bytes = 0
        self._pause_s = 100 / per_s
        self._trouble: BaseException | None = None
        self._enough = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        try:
            while not self._enough.wait(self._pause_s):
                for _ in range(100):
                    self.client.metric(f"m{self.made}", 1.0)
                    self.made += 1
                self.most_bytes = max(self.most_bytes, self.client.stats().bytes)
        except BaseException as exc:  # noqa: BLE001  # told by ``finish``
            self._trouble = exc

    def go_on(self, seconds: float) -> None:
        """Let it run: an outage lasts as long as it lasts."""
        time.sleep(seconds)

    def finish(self, timeout_s: float = 60.0) -> FlushResult:
        """Stop metering and deliver the rest; what became of everything."""
        self._enough.set()
        self._thread.join()
        assert self._trouble is None, repr(self._trouble)
        return self.client.flush(timeout_s)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._enough.set()
        self._thread.join()
        self.client.close()
