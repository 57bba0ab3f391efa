"""Prometheus metrics of model calls: cost, tokens and latency by model and provider.

``LlmMetrics`` counts calls of this process as they are told. ``StoredTotals`` is for an exporter
that may be restarted: it counts nothing itself but shows sums that are kept elsewhere, and those
know every event once.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from callmeter.errors import MissingExtraError

try:
    from prometheus_client import CollectorRegistry, Counter, Histogram, start_http_server
    from prometheus_client.core import CounterMetricFamily
except ImportError as exc:
    raise MissingExtraError("prometheus-client", "prometheus") from exc

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

#: Upper bounds in seconds; ``+Inf`` comes last.
LATENCY_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
LABELS = ("model", "provider")
UNKNOWN = "unknown"


class LlmMetrics:
    """``<namespace>_cost_usd_total``, ``…_tokens_total`` and ``…_latency_seconds``.

    In a registry of its own unless one is given. Thread-safe; no value makes it raise.
    """

    def __init__(
        self, namespace: str = "callmeter", registry: CollectorRegistry | None = None
    ) -> None:
        self.registry = CollectorRegistry() if registry is None else registry
        self._cost = Counter(
            f"{namespace}_cost_usd", "LLM cost in USD", LABELS, registry=self.registry
        )
        self._tokens = Counter(f"{namespace}_tokens", "LLM tokens", LABELS, registry=self.registry)
        self._latency = Histogram(
            f"{namespace}_latency_seconds",
            "LLM latency in seconds",
            LABELS,
            buckets=LATENCY_BUCKETS_S,
            registry=self.registry,
        )

    def record(
        self,
        *,
        model: Any,
        provider: Any,
        cost_usd: Any = None,
        total_tokens: Any = None,
        latency_s: Any = None,
    ) -> None:
        """Count one call. What is None, negative or no number leaves its series as it is."""
        labels = (str(model) if model else UNKNOWN, str(provider) if provider else UNKNOWN)
        if (usd := amount(cost_usd)) is not None:
            self._cost.labels(*labels).inc(usd)
        if (tokens := amount(total_tokens)) is not None:
            self._tokens.labels(*labels).inc(tokens)
        if (seconds := amount(latency_s)) is not None:
            self._latency.labels(*labels).observe(seconds)


class Endpoint:
    """A scrape endpoint over a registry, on a thread of its own. ``OSError`` if the port is taken.

    ``port`` 0 takes a free one.
    """

    def __init__(self, registry: CollectorRegistry, host: str, port: int) -> None:
        self._server, self._thread = start_http_server(port, addr=host, registry=registry)
        self.port: int = self._server.server_port

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class Total(NamedTuple):
    """All calls of one model so far, by whoever keeps them. Unknown is None."""

    model: str
    provider: str
    calls: int
    tokens: int
    cost_usd: Any


class StoredTotals:
    """Counters that show what ``totals`` says at each scrape, for example sums of the store.

    An exporter that is restarted goes on where the sums stand, and an event that is sent or read
    twice is in them once. A correction may lower a sum; a counter never shows less than before
    within one process. Register it: ``registry.register(StoredTotals(…))``.
    """

    def __init__(
        self, totals: Callable[[], Iterable[Total]], *, namespace: str = "callmeter"
    ) -> None:
        self._totals = totals
        self._namespace = namespace
        self._lock = threading.Lock()
        self._shown: dict[tuple[str, str, str], float] = {}

    def describe(self) -> Iterator[Metric]:
        """The names, without asking for sums: registering must not need the store."""
        yield from self._families().values()

    def collect(self) -> Iterator[Metric]:
        """One sample a model and measure."""
        families = self._families()
        for total in self._totals():
            labels = (total.model or UNKNOWN, total.provider or UNKNOWN)
            said = {"calls": total.calls, "tokens": total.tokens, "cost_usd": total.cost_usd}
            for name, value in said.items():
                number = amount(value)
                if number is not None:
                    families[name].add_metric(labels, self._never_less((name, *labels), number))
        yield from families.values()

    def _families(self) -> dict[str, CounterMetricFamily]:
        texts = {"calls": "LLM calls", "tokens": "LLM tokens", "cost_usd": "LLM cost in USD"}
        return {
            name: CounterMetricFamily(f"{self._namespace}_{name}", text, labels=LABELS)
            for name, text in texts.items()
        }

    def _never_less(self, key: tuple[str, str, str], value: float) -> float:
        with self._lock:
            shown = self._shown[key] = max(value, self._shown.get(key, 0.0))
        return shown


def amount(value: Any) -> float | None:
    """A finite number that is not negative; None for anything else, text and booleans included."""
    if value is None or isinstance(value, bool | str | bytes):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) and number >= 0 else None
