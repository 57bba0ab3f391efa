"""PrometheusMetrics: what a scrape shows."""

import asyncio
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from callmeter.compat.synapsekit import PrometheusMetrics, Span, TracingMiddleware
from callmeter.testing import Capture
from support.synapsekit_standins import RAG, InMemoryVectorStore, RAGConfig, StubLLM

GPT = {"model": "gpt-4o-mini", "provider": "openai"}


def samples(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


class Scraped:
    """One scrape; ask it by name and labels."""

    def __init__(self, text: str) -> None:
        self.all = samples(text)

    def __call__(self, name: str, **labels: str) -> float | None:
        return self.all.get((name, tuple(sorted(labels.items()))))

    @property
    def names(self) -> set[str]:
        return {name for name, _ in self.all}


def scrape(metrics: PrometheusMetrics) -> Scraped:
    return Scraped(generate_latest(metrics.registry).decode())


def fetch(port: int) -> Scraped:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        return Scraped(answer.read().decode())


@pytest.fixture
def served() -> Iterator[PrometheusMetrics]:
    metrics = PrometheusMetrics(start_server=True, host="127.0.0.1", port=0)
    yield metrics
    metrics.close()


def llm_span(span_id: str, name: str = "llm.generate", **attributes: object) -> Span:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    return Span(span_id, "t" * 32, None, name, at, at, 25.0, attributes=dict(attributes))


@pytest.mark.acceptance(214)
def test_a_scrape_shows_the_three_metrics_by_model_and_provider(served) -> None:
    served.record_llm(**GPT, cost_usd=0.00045, total_tokens=1500, latency_ms=25)
    seen = fetch(served.port)
    assert seen("synapsekit_cost_usd_total", **GPT) == 0.00045
    assert seen("synapsekit_tokens_total", **GPT) == 1500
    assert seen("synapsekit_latency_seconds_count", **GPT) == 1


@pytest.mark.acceptance(215)
def test_the_buckets_of_latency() -> None:
    metrics = PrometheusMetrics()
    metrics.record_llm(**GPT, cost_usd=None, total_tokens=None, latency_ms=25)
    metrics.record_llm(**GPT, cost_usd=None, total_tokens=None, latency_ms=20_000)
    seen = scrape(metrics)
    name = "synapsekit_latency_seconds_bucket"
    bounds = [dict(labels)["le"] for n, labels in seen.all if n == name]
    assert [float(bound) for bound in bounds] == [
        0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, float("inf"),
    ]  # fmt: skip
    assert seen(name, le="0.01", **GPT) == 0
    assert seen(name, le="0.025", **GPT) == 1
    assert seen(name, le="10.0", **GPT) == 1
    assert seen(name, le="+Inf", **GPT) == 2
    assert seen("synapsekit_latency_seconds_sum", **GPT) == 20.025


@pytest.mark.acceptance(216)
def test_what_is_null_leaves_its_series_as_it_is() -> None:
    metrics = PrometheusMetrics()
    metrics.record_llm(**GPT, cost_usd=None, total_tokens=10, latency_ms=None)
    seen = scrape(metrics)
    assert seen("synapsekit_cost_usd_total", **GPT) is None
    assert seen("synapsekit_latency_seconds_count", **GPT) is None
    assert seen("synapsekit_tokens_total", **GPT) == 10
    metrics.record_llm(**GPT, cost_usd=0.5, total_tokens=None, latency_ms=100)
    seen = scrape(metrics)
    assert seen("synapsekit_cost_usd_total", **GPT) == 0.5
    assert seen("synapsekit_tokens_total", **GPT) == 10
    assert seen("synapsekit_latency_seconds_count", **GPT) == 1
    metrics.record_llm(model=None, provider=None, cost_usd=1.0, total_tokens=2, latency_ms=None)
    seen = scrape(metrics)
    assert seen("synapsekit_cost_usd_total", model="unknown", provider="unknown") == 1.0


@pytest.mark.acceptance(217)
@pytest.mark.parametrize("bad", [-1, "x", float("nan"), float("inf"), True, object(), b"1"])
def test_bad_values_never_raise_and_never_lower_a_counter(bad) -> None:
    metrics = PrometheusMetrics()
    metrics.record_llm(**GPT, cost_usd=1.0, total_tokens=10, latency_ms=100)
    before = scrape(metrics).all
    metrics.record_llm(**GPT, cost_usd=bad, total_tokens=bad, latency_ms=bad)
    assert scrape(metrics).all == before


@pytest.mark.acceptance(218)
def test_only_spans_of_a_models_answer_are_counted() -> None:
    metrics = PrometheusMetrics()
    metrics.record_span(
        llm_span("1" * 16, **GPT, cost_usd=0.5, prompt_tokens=100, completion_tokens=20)
    )
    seen = scrape(metrics)
    assert seen("synapsekit_cost_usd_total", **GPT) == 0.5
    assert seen("synapsekit_tokens_total", **GPT) == 120
    assert seen("synapsekit_latency_seconds_sum", **GPT) == 0.025
    metrics.record_span(llm_span("2" * 16, **GPT, total_tokens=7, prompt_tokens=100))
    assert scrape(metrics)("synapsekit_tokens_total", **GPT) == 127
    before = scrape(metrics).all
    for name in ("rag.query", "llm.stream", "llm", ""):
        metrics.record_span(llm_span("3" * 16, name, **GPT, cost_usd=9, total_tokens=9))
    assert scrape(metrics).all == before


@pytest.mark.acceptance(219)
def test_a_models_span_inside_a_pipelines_is_counted_once(
    callmeter_capture: Capture, spans: list[Span]
) -> None:
    metrics = PrometheusMetrics()
    remove = metrics.install()
    llm = TracingMiddleware(StubLLM(("x", 1000, 500)))
    rag = TracingMiddleware(RAG(RAGConfig(llm=llm, vector_store=InMemoryVectorStore())))
    asyncio.run(rag.aquery("q"))
    remove()
    assert [span.name for span in spans] == ["llm.generate", "rag.aquery"]
    for span in spans:  # told once more by hand
        metrics.record_span(span)
    seen = scrape(metrics)
    assert seen("synapsekit_tokens_total", **GPT) == 1500
    assert seen("synapsekit_cost_usd_total", **GPT) == 0.00045
    assert seen("synapsekit_latency_seconds_count", **GPT) == 1


@pytest.mark.acceptance(220)
def test_a_namespace_is_the_prefix() -> None:
    metrics = PrometheusMetrics(namespace="acme")
    metrics.record_llm(**GPT, cost_usd=1.0, total_tokens=1, latency_ms=1)
    names = scrape(metrics).names
    assert "acme_cost_usd_total" in names
    assert {name for name in names if not name.startswith("acme_")} == set()


@pytest.mark.acceptance(221)
def test_registries_are_private_unless_given() -> None:
    one, other = PrometheusMetrics(), PrometheusMetrics()
    one.record_llm(**GPT, cost_usd=1.0, total_tokens=1, latency_ms=None)
    assert scrape(one)("synapsekit_cost_usd_total", **GPT) == 1.0
    assert scrape(other)("synapsekit_cost_usd_total", **GPT) is None
    registry = CollectorRegistry()
    given = PrometheusMetrics(registry=registry)
    given.record_llm(**GPT, cost_usd=2.0, total_tokens=1, latency_ms=None)
    assert given.registry is registry
    assert Scraped(generate_latest(registry).decode())("synapsekit_cost_usd_total", **GPT) == 2.0


@pytest.mark.acceptance(222)
def test_the_server_is_started_once_and_not_at_all_when_disabled(served) -> None:
    port = served.port
    served.start_http_server(host="127.0.0.1", port=0)
    assert served.port == port
    served.record_llm(**GPT, cost_usd=1.0, total_tokens=1, latency_ms=1)
    assert fetch(port)("synapsekit_cost_usd_total", **GPT) == 1.0

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        free = probe.getsockname()[1]
    given = PrometheusMetrics(start_server=True, host="127.0.0.1", port=free)
    assert given.port == free
    given.close()
    with pytest.raises(urllib.error.URLError):
        fetch(free)

    disabled = PrometheusMetrics(enabled=False, start_server=True, host="127.0.0.1", port=free)
    disabled.record_llm(**GPT, cost_usd=1.0, total_tokens=1, latency_ms=1)
    disabled.record_span(llm_span("1" * 16, **GPT, cost_usd=1.0))
    assert disabled.port is None
    with pytest.raises(urllib.error.URLError):
        fetch(free)
    assert scrape(disabled).all == {}
