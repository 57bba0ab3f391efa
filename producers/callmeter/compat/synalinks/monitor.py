"""The Monitor hook: every module call as JSON to ``<base URL>/trace``, in real time.

Payload and behaviour are those of Synalinks' ``hooks.Monitor`` (as published in its reference); the
sending is callmeter's: background lanes bounded in bytes, losses counted, drained at exit.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import orjson

from callmeter.compat.synalinks.current import told_by_sdk
from callmeter.compat.synalinks.endpoint import api_base, api_key
from callmeter.compat.synalinks.hook import Hook
from callmeter.compat.synalinks.payload import payload_of
from callmeter.compat.synalinks.poster import (
    DEFAULT_MAX_QUEUE_BYTES,
    MonitorStats,
    Poster,
    poster_for,
)
from callmeter.sdk.containment import CONTAINMENT
from callmeter.sdk.freezing import freeze

#: Calls whose end never comes are forgotten, the oldest first, above this many.
MAX_OPEN = 100_000


class Monitor(Hook):
    """Posts one JSON event when a module call begins and one when it ends.

    ``timeout`` is in seconds, for each request. Without ``headers`` the API key, if there is one,
    is sent verbatim as ``Authorization``; with them the key is not added. ``max_queue_bytes``
    bounds what waits while the endpoint is slow or away: beyond it the oldest events go, counted
    in ``stats()``. No method blocks on the network or raises; what could not be sent is logged.

    >>> module = Answer(hooks=[Monitor(timeout=2)])  # doctest: +SKIP
    """

    def __init__(
        self,
        timeout: float = 5,
        headers: Mapping[str, str] | None = None,
        *,
        max_queue_bytes: int = DEFAULT_MAX_QUEUE_BYTES,
    ) -> None:
        super().__init__()
        self.endpoint = api_base()
        self.timeout = timeout
        key = api_key()
        if key is not None and not headers:
            headers = {"Authorization": key}
        self.headers = dict(headers or {})
        self.max_queue_bytes = max_queue_bytes
        #: call id → (wall clock in seconds, monotonic seconds) of its beginning.
        self.call_start_times: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def on_call_begin(self, call_id: str, inputs: Any = None, **more: Any) -> None:
        """A call of this hook's module begins. Newer engines say more; it is not sent."""
        if not told_by_sdk(self.endpoint):
            self.begin(self.module, call_id, inputs)

    def on_call_end(
        self, call_id: str, outputs: Any = None, exception: Any = None, **more: Any
    ) -> None:
        """It has ended; ``exception`` is an exception or its text. One whose beginning was not seen
        has the duration 0.0.
        """
        if not told_by_sdk(self.endpoint):
            self.end(self.module, call_id, outputs, exception)

    def begin(self, module: Any, call_id: str, inputs: Any = None) -> None:
        """As ``on_call_begin``, for any module."""
        now_s = time.time()
        self.call_start_times[call_id] = (now_s, time.monotonic())
        if len(self.call_start_times) > MAX_OPEN:
            self.call_start_times.popitem(last=False)
        self._send("call_begin", module, call_id, now_s, inputs=inputs)

    def end(self, module: Any, call_id: str, outputs: Any = None, exception: Any = None) -> None:
        """As ``on_call_end``, for any module."""
        began = self.call_start_times.pop(call_id, None)
        if began is None:
            now_s, duration_s = time.time(), 0.0
        else:
            # From the monotonic clock, so that a clock that is set meanwhile changes no duration.
            duration_s = time.monotonic() - began[1]
            now_s = began[0] + duration_s
        self._send(
            "call_end", module, call_id, now_s,
            duration=duration_s, outputs=outputs, exception=exception,
        )  # fmt: skip

    def flush(self, timeout_s: float = 5.0) -> bool:
        """Wait until what was handed over is sent or given up; False if time ran out."""
        return self._poster().flush(timeout_s)

    def stats(self) -> MonitorStats:
        """Counters of this hook's endpoint, shared by all monitors with the same settings."""
        return self._poster().stats()

    def _send(self, event: str, module: Any, call_id: str, timestamp: float, **fields: Any) -> None:
        try:
            trace: dict[str, Any] = {
                "event": event,
                "call_id": str(call_id),
                "module_name": getattr(module, "name", None),
                "module_description": getattr(module, "description", None),
                "timestamp": timestamp,
            }
            if event == "call_begin":
                trace["inputs"] = payload_of(fields["inputs"])
            else:
                exception = fields["exception"]
                trace["duration"] = fields["duration"]
                trace["outputs"] = None if exception is not None else payload_of(fields["outputs"])
                trace["exception"] = str(exception) if exception is not None else None
                trace["success"] = exception is None
            # A copy: orjson's own result keeps the whole buffer it was written into (4 KiB measured
            # for a trace of 360 bytes), and what waits is bounded in bytes.
            body = bytes(memoryview(encoded(trace)))
            self._poster().submit(trace["call_id"], body)
        except Exception as exc:  # noqa: BLE001  # a data model's own methods may do anything
            CONTAINMENT.caught("Monitor", exc)

    def _poster(self) -> Poster:
        return poster_for(self.endpoint, self.headers, self.timeout, self.max_queue_bytes)


def encoded(trace: Mapping[str, Any]) -> bytes:
    """The trace as JSON; values that JSON cannot say become their text."""
    try:
        return orjson.dumps(trace, default=str, option=orjson.OPT_NON_STR_KEYS)
    except TypeError:  # a lone surrogate, an integer beyond 64 bits, a value nested without end
        from callmeter.sdk.scrub import valid_unicode

        return orjson.dumps(valid_unicode(freeze(trace)), default=str)
