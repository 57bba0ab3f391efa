"""The collector's own counters, in Prometheus' text format.

Written by hand: a dozen counters do not justify prometheus_client in the collector's install.
Format: https://prometheus.io/docs/instrumenting/exposition_formats/ (text, version 0.0.4).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

#: Every metric, its type and its meaning, in one list.
REQUESTS = "callmeter_collector_requests_total"
ENVELOPES = "callmeter_collector_envelopes_total"
EVENTS = "callmeter_collector_events_total"
BYTES = "callmeter_collector_bytes_total"
REFUSED = "callmeter_collector_refused_total"
TRACES = "callmeter_collector_trace_events_total"
IN_FLIGHT = "callmeter_collector_requests_in_flight"
CONNECTIONS = "callmeter_collector_connections"
DROPPED_CONNECTIONS = "callmeter_collector_connections_dropped_total"
SPANS = "callmeter_collector_otlp_spans_total"
APPEND_SECONDS = "callmeter_collector_append_seconds"
_MEANING = {
    REQUESTS: ("counter", "Requests answered, by route and status."),
    ENVELOPES: ("counter", "Envelopes acknowledged after the log had them."),
    EVENTS: ("counter", "Events in acknowledged envelopes, by their headers."),
    BYTES: ("counter", "Bytes of acknowledged envelopes, uncompressed."),
    REFUSED: ("counter", "Requests not taken, by reason."),
    TRACES: ("counter", "Traces of the Monitor hook, by what became of them."),
    IN_FLIGHT: ("gauge", "Requests in hand."),
    CONNECTIONS: ("gauge", "Open connections."),
    DROPPED_CONNECTIONS: ("counter", "Connections cut off before a request, by reason."),
    SPANS: ("counter", "OTLP spans, by what became of them."),
    APPEND_SECONDS: ("histogram", "Time the log took to acknowledge an append."),
}
_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

Labels = tuple[tuple[str, str], ...]
Source = Callable[[], Iterable[str]]


class Metrics:
    """Counters by name and labels; one event loop's, so without locks.

    Other parts of the process may add lines of their own with ``add_source``.
    """

    def __init__(self) -> None:
        self._values: dict[str, dict[Labels, float]] = {
            name: {(): 0.0} if name in (ENVELOPES, EVENTS, BYTES, IN_FLIGHT, CONNECTIONS) else {}
            for name, (kind, _) in _MEANING.items()
            if kind != "histogram"
        }
        self._buckets = [0] * (len(_BUCKETS_S) + 1)
        self._sum_s = 0.0
        self._sources: list[Source] = []

    def add(self, name: str, amount: float = 1, **labels: str) -> None:
        """Count; ``name`` is one of this module's."""
        series = self._values[name]
        key = tuple(sorted(labels.items()))
        series[key] = series.get(key, 0.0) + amount

    def value(self, name: str, **labels: str) -> float:
        """What was counted so far."""
        return self._values[name].get(tuple(sorted(labels.items())), 0.0)

    def observe_append(self, seconds: float) -> None:
        """One append's duration."""
        self._buckets[bisect_left(_BUCKETS_S, seconds)] += 1
        self._sum_s += seconds

    def add_source(self, source: Source) -> None:
        """``source()`` gives further lines of the exposition, HELP and TYPE included."""
        self._sources.append(source)

    def text(self) -> str:
        """The exposition."""
        lines: list[str] = []
        for name, series in self._values.items():
            lines += _head(name)
            lines += [f"{name}{_labels(key)} {_number(v)}" for key, v in sorted(series.items())]
        lines += _head(APPEND_SECONDS)
        total = 0
        for bound, count in zip((*_BUCKETS_S, "+Inf"), self._buckets, strict=True):
            total += count
            lines.append(f'{APPEND_SECONDS}_bucket{{le="{bound}"}} {total}')
        lines += [f"{APPEND_SECONDS}_sum {self._sum_s!r}", f"{APPEND_SECONDS}_count {total}"]
        for source in self._sources:
            lines += source()
        return "\n".join(lines) + "\n"


def _head(name: str) -> list[str]:
    kind, meaning = _MEANING[name]
    return [f"# HELP {name} {meaning}", f"# TYPE {name} {kind}"]


def _labels(labels: Labels) -> str:
    if not labels:
        return ""
    escaped = (
        (k, v.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")) for k, v in labels
    )
    return "{" + ",".join(f'{k}="{v}"' for k, v in escaped) + "}"


def _number(value: float) -> str:
    return str(int(value)) if value.is_integer() else repr(value)
