"""The test kit: see what your program would send, without a backend, a thread or a real clock.

    def test_answer(callmeter_capture):          # the pytest fixture
        answer("What is the capital of France?")
        (call,) = callmeter_capture.calls
        assert call["usage"] == {"input": 12, "output": 7}

Without pytest: ``with capture() as captured: …``. While it is active the SDK's own errors are
raised instead of logged.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from callmeter.clock import ManualClock
from callmeter.sdk import api
from callmeter.sdk.client import Client
from callmeter.sdk.containment import CONTAINMENT
from callmeter.settings import resolve
from callmeter.testing.transport import CaptureTransport

__all__ = ["Capture", "CaptureTransport", "ManualClock", "capture", "raising"]


class Capture:
    """A client that keeps what it was given. Each property flushes first."""

    def __init__(self, client: Client, transport: CaptureTransport, clock: ManualClock) -> None:
        self.client = client
        self.transport = transport
        self.clock = clock

    @property
    def events(self) -> list[dict[str, Any]]:
        """All events so far, as they would travel."""
        self.client.flush(0.0)
        return self.transport.events

    @property
    def calls(self) -> list[dict[str, Any]]:
        """``call_end`` events, in the order in which the calls ended."""
        return self.of_kind("call_end")

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """``metric`` events."""
        return self.of_kind("metric")

    def of_kind(self, kind: str) -> list[dict[str, Any]]:
        """Events of one kind."""
        return [event for event in self.events if event["kind"] == kind]


@contextmanager
def capture(**settings: Any) -> Iterator[Capture]:
    """Make a capturing client the default one, raise the SDK's errors, put everything back after.

    ``settings`` are those of ``callmeter.init``. The clock stands still unless ``clock.advance`` is
    called. The environment and ``callmeter.toml`` are not read.
    """
    clock, transport = ManualClock(), CaptureTransport()
    given = {"heartbeat_s": 0.0, "handle_signals": False, **settings}
    resolved = resolve(given, environ={"CALLMETER_CONFIG": os.devnull})
    client = Client(resolved, transport=transport, clock=clock, threaded=False)
    before = api.swap(client)
    try:
        with raising():
            yield Capture(client, transport, clock)
    finally:
        api.swap(before)
        client.close(0.0)


@contextmanager
def raising(on: bool = True) -> Iterator[None]:
    """Raise the SDK's own errors inside this block (``on=False``: contain them, as in
    production).
    """
    before, CONTAINMENT.raising = CONTAINMENT.raising, on
    try:
        yield
    finally:
        CONTAINMENT.raising = before
