"""SynapseKit's facade on the real pipeline: what is in the store, and what is not."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest

import callmeter
from callmeter.compat.synapsekit import (
    AuditLog,
    CostTracker,
    DistributedTracer,
    Span,
    TracingMiddleware,
    observe,
)
from callmeter.integrations.prometheus import StoredTotals, Total
from support.cli import environment
from support.embedded import Pipeline
from support.synapsekit_standins import RAG, InMemoryVectorStore, RAGConfig, StubLLM
from support.synapsekit_stored import Stored, stored

__all__ = ["stored"]  # a fixture


@pytest.fixture
def spans() -> Iterator[list[Span]]:
    seen: list[Span] = []
    remove = observe(seen.append)
    yield seen
    remove()


def run(awaitable):
    return asyncio.run(awaitable)


@pytest.mark.acceptance(180)
def test_a_records_cost_is_the_stored_one(stored: Stored) -> None:
    tracker = CostTracker(StubLLM(("x", 1000, 500)))
    run(tracker.generate("q"))
    (row,) = stored.settle(1)
    assert row.cost_usd == Decimal("0.00045")
    assert tracker.records[0].total_cost_usd == float(row.cost_usd)
    assert (row.input_tokens, row.output_tokens) == (1000, 500)
    assert (row.model, row.provider) == ("gpt-4o-mini", "openai")


@pytest.mark.acceptance(204)
def test_what_is_not_recorded_is_nowhere_downstream(stored: Stored) -> None:
    kept, hidden = f"kept {stored.project}", f"hidden {stored.project}"
    answer = f"unheard of {stored.project}"
    run(TracingMiddleware(StubLLM((answer, 1, 1)), record_outputs=False).generate(kept))
    run(TracingMiddleware(StubLLM(("fine", 1, 1)), record_inputs=False).generate(hidden))
    rows = stored.settle(2)
    assert json.loads(next(row.inputs for row in rows if row.inputs)) == kept
    assert json.loads(next(row.outputs for row in rows if row.outputs)) == "fine "
    everything = stored.everything()
    assert kept in everything
    assert hidden not in everything
    assert answer not in everything


@pytest.mark.acceptance(228)
def test_no_prompt_is_stored_with_the_switch_off(stored: Stored) -> None:
    secret = f"secret {stored.project}"
    stored.configure(trace_llm_inputs=False)
    llm = TracingMiddleware(CostTracker(StubLLM(("fine", 1, 1))), record_inputs=True)
    rag = TracingMiddleware(RAG(RAGConfig(llm=llm, vector_store=InMemoryVectorStore())))

    async def all_of_them() -> None:
        await llm.generate(secret)
        async for _ in llm.stream(secret):
            pass
        await rag.aquery(secret)

    run(all_of_them())
    rows = stored.settle(4)
    assert len(rows) == 4
    assert {row.inputs for row in rows} == {""}
    assert secret not in stored.everything()
    stored.configure(trace_llm_inputs=True)
    run(llm.generate(secret))
    stored.settle(5)
    assert secret in stored.everything()


@pytest.mark.acceptance(227)
def test_redacted_values_never_leave_the_process(stored: Stored) -> None:
    stored.configure(redact_keys=["api_key"], record_inputs=True)
    secret = "sk-live-0123456789"
    with DistributedTracer("svc").start_span("work") as span:
        span.set_attribute("Api_Key", secret)
        span.set_attribute("request", {"deep": [{"API_KEY": secret, "kept": "yes"}]})
        span.add_event("sent", {"api_key": secret})
    messages = [{"role": "user", "content": "hi", "apI_kEy": secret}]
    run(TracingMiddleware(StubLLM()).generate(messages))
    AuditLog().record("login", user="alice", api_key=secret)
    rows = {row.name: row for row in stored.settle(2)}
    assert rows["work"].attributes["Api_Key"] == "[REDACTED]"
    request = json.loads(rows["work"].attributes["request"])
    assert request == {"deep": [{"API_KEY": "[REDACTED]", "kept": "yes"}]}
    assert json.loads(rows["llm.generate"].inputs)[0]["apI_kEy"] == "[REDACTED]"
    assert secret not in stored.everything()


@pytest.mark.acceptance(226)
def test_a_trace_that_is_not_sampled_is_not_stored(stored: Stored, spans: list[Span]) -> None:
    stored.configure(sample_rate=0.0)
    tracer = DistributedTracer("svc")
    with tracer.start_span("root"):
        run(TracingMiddleware(StubLLM()).generate("q"))
    assert callmeter.flush(20.0).ok
    stored.configure(sample_rate=1.0)
    with tracer.start_span("kept root"), tracer.start_span("kept child"):
        pass
    rows = stored.settle(2)
    assert sorted(row.name for row in rows) == ["kept child", "kept root"]
    assert [span.name for span in spans] == ["kept child", "kept root"]


@pytest.mark.acceptance(211)
def test_what_a_span_says_is_stored(stored: Stored) -> None:
    tracer = DistributedTracer("rag-service")
    with tracer.start_span("rag.query") as span:
        span.set_attribute("answer_length", 17)
        span.add_event("retrieved", {"documents": 3})
        span.set_status("error")
    end = span.span.end_time
    span.end()
    assert span.span.end_time == end
    (row,) = stored.settle(1)
    assert (row.name, row.span_id, row.trace_id) == ("rag.query", span.span_id, span.trace_id)
    assert row.attributes["answer_length"] == "17"
    assert row.attributes["service.name"] == "rag-service"
    (event,) = json.loads(row.attributes["events"])
    assert (event["name"], event["attributes"]) == ("retrieved", {"documents": 3})
    assert row.status == "error"
    assert row.latency_us is not None
    assert span.span.duration_ms == row.latency_us / 1000


#: Another service: answers one request and goes on with the trace that its headers say.
_SERVICE = """
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
import callmeter
from callmeter.compat.synapsekit import DistributedTracer

url, project = sys.argv[1:]
callmeter.init(url, project=project, service="retriever")
tracer = DistributedTracer("retriever")

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        context = tracer.extract_context(self.headers)
        with tracer.start_span("retrieve", parent_context=context):
            with tracer.start_span("search"):
                pass
        self.send_response(204)
        self.end_headers()
    def log_message(self, *_):
        pass

server = HTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.handle_request()
server.server_close()
assert callmeter.flush(20).ok
callmeter.close()
"""


@pytest.mark.acceptance(213)
@pytest.mark.parametrize("propagation", ["w3c", "b3"])
def test_two_services_over_http_are_one_trace(stored: Stored, propagation: str) -> None:
    stored.configure(service="front")
    tracer = DistributedTracer("front", propagation_format=propagation)
    code = _SERVICE.replace('("retriever")\n', f'("retriever", "{propagation}")\n')
    with subprocess.Popen(
        [sys.executable, "-c", code, stored.pipeline.url, stored.project],
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
    ) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        with tracer.start_span("answer"):
            headers = tracer.inject_context({})
            request = urllib.request.Request(f"http://127.0.0.1:{port}/", headers=headers)
            with urllib.request.urlopen(request, timeout=20) as answer:
                assert answer.status == 204
        assert process.wait(timeout=30) == 0
    rows = {row.name: row for row in stored.settle(3)}
    assert len({row.trace_id for row in rows.values()}) == 1
    assert rows["answer"].parent_span_id == ""
    assert rows["retrieve"].parent_span_id == rows["answer"].span_id
    assert rows["search"].parent_span_id == rows["retrieve"].span_id
    assert [rows[name].service for name in ("answer", "retrieve", "search")] == [
        "front",
        "retriever",
        "retriever",
    ]
    assert rows["answer"].attributes["service.name"] == "front"
    assert rows["retrieve"].attributes["service.name"] == "retriever"
    trace = stored.pipeline.queries.trace(rows["answer"].trace_id)
    assert [root.call.name for root in trace.roots] == ["answer"]


def shown(source: Callable[[], list[Total]]) -> dict[str, float]:
    """One scrape of an exporter that has just been started."""
    registry = CollectorRegistry()
    registry.register(StoredTotals(source, namespace="synapsekit"))
    lines = generate_latest(registry).decode().splitlines()
    pairs = [line.rsplit(" ", 1) for line in lines if not line.startswith("#")]
    return {name: float(value) for name, value in pairs}


@pytest.mark.acceptance(223)
def test_an_exporter_that_is_restarted_does_not_count_replayed_events_twice(
    embedded: Pipeline, project: str, tmp_path: Path
) -> None:
    file = tmp_path / "events.jsonl"
    callmeter.init(f"jsonl:{file}", project=project)
    tracker = CostTracker(StubLLM(("x", 1000, 500)))
    for _ in range(3):
        run(tracker.generate("q"))
    callmeter.close()

    def totals() -> list[Total]:
        report = embedded.queries.report(by=["model", "provider"], project=project)
        return [
            Total(
                str(row.key["model"]),
                str(row.key["provider"]),
                row.figures.calls,
                (row.figures.input_tokens or 0) + (row.figures.output_tokens or 0),
                row.figures.cost_usd,
            )
            for row in report.rows
        ]

    def replay() -> None:
        """The same bytes, as a producer sends them again."""
        request = urllib.request.Request(f"{embedded.url}/v1/envelopes", file.read_bytes())
        with urllib.request.urlopen(request, timeout=20) as answer:
            assert answer.status == 200

    def received() -> int:
        sql = "SELECT count() FROM envelopes WHERE project = {p:String}"
        return int(embedded.store.query(sql, {"p": project}).rows[0][0])

    replay()
    embedded.wait(lambda: sum(total.calls for total in totals()) == 3)
    first_received = received()
    before = shown(totals)
    labels = '{model="gpt-4o-mini",provider="openai"}'
    assert before[f"synapsekit_tokens_total{labels}"] == 4500
    assert before[f"synapsekit_cost_usd_total{labels}"] == 0.00135
    assert before[f"synapsekit_calls_total{labels}"] == 3
    replay()
    embedded.wait(lambda: received() > first_received)  # they came again, and were duplicates
    assert shown(totals) == before
