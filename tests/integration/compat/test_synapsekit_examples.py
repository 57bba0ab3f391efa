"""The document's programs run with their import line changed, against stubs of what they import."""

from __future__ import annotations

import runpy
import sys
import types
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

import callmeter
from callmeter.compat.synapsekit import (
    BudgetGuard,
    CostTracker,
    OTelExporter,
    PrometheusMetrics,
    Span,
    observe,
)
from support import synapsekit_standins
from support.embedded import Pipeline
from support.otlp_receiver import attributes_of, grpc_receiver

EXAMPLES = Path(__file__).parents[3] / "examples"
GPT = {"model": "gpt-4o-mini", "provider": "openai"}


class Programs:
    """Runs an example as it stands but for its ports; ``rags`` are the pipelines it has built."""

    def __init__(self, tmp_path: Path) -> None:
        self._tmp_path = tmp_path
        self.rags: list[synapsekit_standins.RAG] = []

    def run(self, name: str, **ports: str) -> None:
        text = (EXAMPLES / name).read_text(encoding="utf-8")
        for old, new in ports.values():
            assert text.count(old) == 1
            text = text.replace(old, new)
        copy = self._tmp_path / name
        copy.write_text(text, encoding="utf-8")
        runpy.run_path(str(copy), run_name="__main__")


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    """With a stub of ``synapsekit`` installed, whose model uses 1,000 tokens in and 500 out."""
    found = Programs(tmp_path)
    engine = types.ModuleType("synapsekit")
    for name in ("LLMConfig", "InMemoryVectorStore", "RAGConfig", "SynapsekitEmbeddings"):
        setattr(engine, name, getattr(synapsekit_standins, name))

    class OpenAILLM(synapsekit_standins.StubLLM):
        def __init__(self, config: Any) -> None:
            super().__init__(("an async-first library", 1000, 500), config=config)

    class RAG(synapsekit_standins.RAG):
        def __init__(self, config: Any) -> None:
            super().__init__(config)
            found.rags.append(self)

    engine.OpenAILLM, engine.RAG = OpenAILLM, RAG  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "synapsekit", engine)
    return found


@pytest.fixture
def exporters(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[OTelExporter]]:
    """Those that a program has installed; a program's end would end them."""
    made: list[OTelExporter] = []
    install = OTelExporter.install

    def remembered(self: OTelExporter) -> OTelExporter:
        made.append(self)
        return install(self)

    monkeypatch.setattr(OTelExporter, "install", remembered)
    yield made
    for exporter in made:
        exporter.uninstall()


@pytest.fixture
def spans() -> Iterator[list[Span]]:
    seen: list[Span] = []
    remove = observe(seen.append)
    yield seen
    remove()


@pytest.mark.acceptance(225)
def test_the_full_setup(  # noqa: PLR0917  # each is a fixture
    embedded: Pipeline,
    project: str,
    programs: Programs,
    spans: list[Span],
    exporters: list[OTelExporter],
    capsys: pytest.CaptureFixture[str],
) -> None:
    metrics = PrometheusMetrics()
    remove = metrics.install()
    callmeter.init(embedded.url, project=project)
    with grpc_receiver() as received:
        programs.run("synapsekit_full.py", otlp=("localhost:4317", received.endpoint))
        assert [exporter.flush() for exporter in exporters] == [True]
        assert len(received.spans) == 2
    remove()
    assert capsys.readouterr().out == "an async-first library \n"

    (rag,) = programs.rags
    guard = rag.config.llm
    assert isinstance(guard, BudgetGuard)
    tracker = guard._llm
    assert isinstance(tracker, CostTracker)
    (record,) = tracker.records  # one cost record
    assert (record.input_tokens, record.output_tokens) == (1000, 500)
    assert record.total_cost_usd == 0.00045
    assert guard.spent == 0.00045  # one budget spend
    assert guard.circuit_state.value == "closed"

    asked, answered = spans  # the model's is below the pipeline's
    assert (asked.name, answered.name) == ("llm.generate", "rag.aquery")
    assert asked.parent_span_id == answered.span_id
    assert asked.attributes["gen_ai.usage.input_tokens"] == 1000
    assert asked.attributes["gen_ai.usage.output_tokens"] == 500
    assert asked.attributes["cost_usd"] == 0.00045
    assert answered.attributes["input"] == "What is SynapseKit?"

    exported = {span.name: span for span in received.spans}
    assert exported["llm.generate"].parent_span_id == exported["rag.aquery"].span_id
    said = attributes_of(exported["llm.generate"])
    assert (said["gen_ai.usage.input_tokens"], said["gen_ai.usage.output_tokens"]) == (1000, 500)
    assert said["cost_usd"] == 0.00045

    registry = metrics.registry
    assert registry.get_sample_value("synapsekit_tokens_total", GPT) == 1500
    assert registry.get_sample_value("synapsekit_cost_usd_total", GPT) == 0.00045
    assert registry.get_sample_value("synapsekit_latency_seconds_count", GPT) == 1

    assert callmeter.flush(20.0).ok
    stats = callmeter.stats()
    embedded.settle(stats.source, stats.envelopes)
    embedded.wait(lambda: len(embedded.queries.calls(project=project)) == 2)
    rows = {row.name: row for row in embedded.queries.calls(project=project)}
    assert rows["llm.generate"].cost_usd == Decimal("0.00045")
    assert rows["llm.generate"].usage == {"input": 1000, "output": 500}
    assert rows["llm.generate"].parent_span_id == rows["rag.aquery"].span_id
    assert rows["rag.aquery"].cost_usd is None
    totals = embedded.queries.report(by=["model"], project=project).totals
    assert (totals.calls, totals.cost_usd) == (1, Decimal("0.00045"))
    callmeter.close()


def test_the_prometheus_program(
    embedded: Pipeline,
    project: str,
    programs: Programs,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[PrometheusMetrics] = []
    begin = PrometheusMetrics.__init__

    def remembered(self: PrometheusMetrics, **options: Any) -> None:
        begin(self, **options)
        made.append(self)

    monkeypatch.setattr(PrometheusMetrics, "__init__", remembered)
    callmeter.init(embedded.url, project=project)
    programs.run("synapsekit_prometheus.py", port=("port=8000)", 'port=0, host="127.0.0.1")'))
    assert capsys.readouterr().out == "Total cost: $0.0014\n"  # 3 × 0.00045
    (metrics,) = made
    assert metrics.port is not None
    registry = metrics.registry
    assert registry.get_sample_value("synapsekit_tokens_total", GPT) == 4500
    assert registry.get_sample_value("synapsekit_cost_usd_total", GPT) == pytest.approx(0.00135)
    assert registry.get_sample_value("synapsekit_latency_seconds_count", GPT) is None
    metrics.close()
    callmeter.close()
