"""A sink on a thread of its own, for a process that does other things too."""

from __future__ import annotations

import threading

from callmeter_sinks.group import SinkGroup
from callmeter_sinks.sink import Sink


class SinkThread:
    """Runs a sink from ``start`` to ``stop``; ``failed`` is what ended it, if something did."""

    def __init__(self, sink: Sink | SinkGroup) -> None:
        self.failed: BaseException | None = None
        self.sink = sink
        self._thread = threading.Thread(target=self._run, name="callmeter-sink", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Insert what the log has by now, and end; raises what made the sink fail."""
        self.sink.end()
        self._thread.join()
        if self.failed is not None:
            raise self.failed

    def _run(self) -> None:
        try:
            self.sink.run()
        except BaseException as exc:  # noqa: BLE001  # kept for whoever asks why it ended
            self.failed = exc
