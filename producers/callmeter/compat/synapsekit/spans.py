"""``Span``: one finished or open piece of work, as SynapseKit's programs and exporters read it.

Whoever wants finished spans observes them: exporters to OpenTelemetry, Prometheus metrics, a test.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from callmeter.sdk.containment import CONTAINMENT

#: Attribute with the name of the tracer that made a span (OpenTelemetry's for non-OTLP formats).
SCOPE_NAME = "otel.scope.name"


@dataclass
class Span:
    """Ids are 16 and 32 hex digits, times aware and in UTC; an open span has no end.

    ``events`` are dicts of ``name``, ``timestamp`` and ``attributes``. ``status`` is ``unset``
    until the end, then ``ok`` or ``error``, with the error's text.
    """

    span_id: str
    trace_id: str
    parent_span_id: str | None
    name: str
    start_time: datetime
    end_time: datetime | None = None
    duration_ms: float | None = None
    attributes: dict[str, Any] = field(default_factory=dict)
    events: list[dict[str, Any]] = field(default_factory=list)
    status: str = "unset"
    error: str | None = None


Observer = Callable[[Span], None]


class _Observers:
    """Who is told of finished spans."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._all: tuple[Observer, ...] = ()

    def add(self, observer: Observer) -> Callable[[], None]:
        with self._lock:
            if observer not in self._all:
                self._all = (*self._all, observer)

        def remove() -> None:
            with self._lock:
                self._all = tuple(each for each in self._all if each != observer)

        return remove

    def tell(self, span: Span) -> None:
        for observer in self._all:
            try:
                observer(span)
            except Exception as exc:  # noqa: BLE001  # an exporter never hurts the program
                CONTAINMENT.caught("an observer of spans", exc)


_observers = _Observers()


def observe(observer: Observer) -> Callable[[], None]:
    """Have every span that ends from now on told to ``observer``, once; returns what ends that.

    Called on the thread that ended the span: an observer must not block. Its errors are contained.
    """
    return _observers.add(observer)


def finished(span: Span) -> None:
    """A sampled span has ended."""
    _observers.tell(span)
