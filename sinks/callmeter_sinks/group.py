"""Several sinks over one store, each on a thread of its own, that run and end together."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from callmeter_sinks.sink import Sink
from callmeter_sinks.stats import SinkStats


class SinkGroup:
    """Sinks of different topics. The first is the one whose figures count: that of ``metered``.

    They share nothing but the store. What ends one of them ends all; ``run`` then raises it.
    """

    def __init__(self, sinks: Sequence[Sink]) -> None:
        self._sinks = sinks
        self._failed: list[BaseException] = []

    def run(self) -> SinkStats:
        """Insert what comes until ``stop``."""
        threads = [
            threading.Thread(target=self._run, args=(sink,), name=f"callmeter-sink-{sink.topic}")
            for sink in self._sinks[1:]
        ]
        for thread in threads:
            thread.start()
        self._run(self._sinks[0])
        for thread in threads:
            thread.join()
        if self._failed:
            raise self._failed[0]
        return self.stats

    def drain(self) -> SinkStats:
        """Insert everything up to the log's end as it is now, one topic after the other."""
        for sink in self._sinks:
            sink.drain()
        return self.stats

    def stop(self) -> None:
        """End ``run`` or ``drain`` soon."""
        for sink in self._sinks:
            sink.stop()

    def end(self) -> None:
        """Have ``run`` return once every sink has inserted what its topic has by now."""
        for sink in self._sinks:
            sink.end()

    @property
    def stats(self) -> SinkStats:
        """Of the first sink; may be read from any thread."""
        return self._sinks[0].stats

    def _run(self, sink: Sink) -> None:
        try:
            sink.run()
        except BaseException as exc:  # noqa: BLE001  # raised by ``run`` when all have ended
            self._failed.append(exc)
            self.stop()
