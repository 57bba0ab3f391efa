"""The collector on a thread of its own, for a process that does other things too."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable

from callmeter.collector.app import run_collector
from callmeter.collector.config import CollectorConfig
from callmeter.collector.context import RouteInstaller
from callmeter.errors import CallmeterError
from callmeter.log.record import LogAppender

_START_S = 10.0


class CollectorThread:
    """Serves from ``start`` to ``stop``; ``failed`` is what ended it, if something did."""

    def __init__(
        self,
        appender: LogAppender,
        config: CollectorConfig,
        *,
        extra_routes: Iterable[RouteInstaller] = (),
    ) -> None:
        self.url = ""
        self.failed: BaseException | None = None
        self._appender = appender
        self._config = config
        self._extra_routes = tuple(extra_routes)
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, name="callmeter-collector", daemon=True)

    def start(self) -> None:
        """Returns once it listens; raises what kept it from listening."""
        self._thread.start()
        self._started.wait(_START_S)
        if self.failed is not None:
            raise self.failed
        if not self.url:
            raise CallmeterError(f"the collector did not start within {_START_S:.0f} s")

    def stop(self) -> None:
        """Finishes the requests in hand, within the drain time-out. Stopping twice is harmless."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(self._config.drain_timeout_s + _START_S)

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(
                run_collector(
                    self._appender,
                    self._config,
                    extra_routes=self._extra_routes,
                    stop=self._stop,
                    on_started=self._on_started,
                )
            )
        except BaseException as exc:  # noqa: BLE001  # kept for whoever asks why it ended
            self.failed = exc
        finally:
            self._loop.close()
            self._started.set()

    def _on_started(self, url: str) -> None:
        self.url = url
        self._started.set()
