"""``PrometheusMetrics``: cost, tokens and latency of model calls for Prometheus to scrape."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

from callmeter.compat.synapsekit.spans import Span, observe
from callmeter.sdk.usage.fields import count

#: The only spans that are calls of a model answered in one piece, and so the only ones counted.
LLM_SPAN = "llm.generate"
#: Spans remembered so that none is counted twice.
MAX_REMEMBERED = 10_000


class PrometheusMetrics:
    """``<namespace>_cost_usd_total``, ``_tokens_total`` and ``_latency_seconds`` by model and
    provider.

    ``registry`` defaults to a private one. ``enabled=False`` records nothing and opens no port.
    ``install()`` counts every model call that a ``TracingMiddleware`` traces.
    ``MissingExtraError`` without prometheus-client.
    """

    def __init__(
        self,
        *,
        enabled: bool = True,
        namespace: str = "synapsekit",
        registry: Any | None = None,
        start_server: bool = False,
        host: str = "0.0.0.0",  # noqa: S104  # the document's default
        port: int = 8000,
    ) -> None:
        from callmeter.integrations.prometheus import Endpoint, LlmMetrics

        self.enabled = enabled
        self._metrics = LlmMetrics(namespace, registry)
        self.registry = self._metrics.registry
        self._endpoint: Endpoint | None = None
        self._lock = threading.Lock()
        self._counted: OrderedDict[str, None] = OrderedDict()
        if start_server:
            self.start_http_server(host=host, port=port)

    @property
    def port(self) -> int | None:
        """Where it is served; None if it is not."""
        return None if self._endpoint is None else self._endpoint.port

    def start_http_server(self, *, host: str = "0.0.0.0", port: int = 8000) -> None:  # noqa: S104
        """Serve ``/metrics``; nothing happens if it is served already. ``OSError`` if the port is
        taken.
        """
        from callmeter.integrations.prometheus import Endpoint

        with self._lock:
            if self.enabled and self._endpoint is None:
                self._endpoint = Endpoint(self.registry, host, port)

    def close(self) -> None:
        """Stop serving."""
        with self._lock:
            endpoint, self._endpoint = self._endpoint, None
        if endpoint is not None:
            endpoint.close()

    def install(self) -> Callable[[], None]:
        """Record every span that ends from now on; returns what ends that."""
        return observe(self.record_span)

    def record_llm(
        self,
        *,
        model: str | None,
        provider: str | None,
        cost_usd: float | None,
        total_tokens: int | None,
        latency_ms: float | None,
    ) -> None:
        """Count one call of a model; what is None or makes no sense is left out. Never raises."""
        if self.enabled:
            from callmeter.integrations.prometheus import amount

            latency = amount(latency_ms)
            self._metrics.record(
                model=model,
                provider=provider,
                cost_usd=cost_usd,
                total_tokens=total_tokens,
                latency_s=None if latency is None else latency / 1000,
            )

    def record_span(self, span: Span) -> None:
        """Count the model call that a span named ``llm.generate`` is, wherever in its trace it
        stands. Other spans change nothing, and no span counts twice.
        """
        if not self.enabled or span.name != LLM_SPAN or self._is_known(span.span_id):
            return
        said = span.attributes
        self.record_llm(
            model=_any(said, "model", "gen_ai.request.model"),
            provider=_any(said, "provider", "gen_ai.provider.name", "gen_ai.system"),
            cost_usd=_any(said, "cost_usd", "cost"),
            total_tokens=_total_tokens(said),
            latency_ms=span.duration_ms,
        )

    def _is_known(self, span_id: str) -> bool:
        if not span_id:
            return False
        with self._lock:
            if span_id in self._counted:
                return True
            self._counted[span_id] = None
            if len(self._counted) > MAX_REMEMBERED:
                self._counted.popitem(last=False)
            return False


def _total_tokens(said: Mapping[str, Any]) -> int | None:
    """The total, else prompt and completion together; None if neither is known."""
    total = count(_any(said, "total_tokens", "gen_ai.usage.total_tokens"))
    if total is not None:
        return total
    prompt = count(_any(said, "prompt_tokens", "input_tokens", "gen_ai.usage.input_tokens"))
    answer = count(_any(said, "completion_tokens", "output_tokens", "gen_ai.usage.output_tokens"))
    return None if prompt is None and answer is None else (prompt or 0) + (answer or 0)


def _any(said: Mapping[str, Any], *names: str) -> Any:
    return next((said[name] for name in names if said.get(name) is not None), None)
