"""Nodes: executions, failures, and the requests within (rows 97 to 101)."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from callmeter.compat.sygra import ERROR_PREFIX, track_node
from callmeter.sdk import api

GOOD = {"usage": {"prompt_tokens": 22, "completion_tokens": 46, "total_tokens": 68}}


def nodes(collector):
    return collector.get_metadata_summary()["nodes"]


@pytest.mark.acceptance(97)
def test_node_metrics(collector):
    for latency, success in ((1.0, True), (2.0, False), (0.5, True)):
        collector.record_node_execution("summarizer", "llm", latency, success)
    node = nodes(collector)["summarizer"]
    assert node["total_executions"] == 3
    assert node["total_failures"] == 1
    assert node["failure_rate"] == 0.333
    assert node["total_latency_seconds"] == 3.5
    assert node["average_latency_seconds"] == 1.167


@pytest.mark.acceptance(97)
def test_node_metrics_as_they_are_measured(collector, captured):
    """By the capturing client's clock, which stands still unless it is moved."""
    for latency, fails in ((1.0, False), (2.0, True), (0.5, False)):
        try:
            with track_node("summarizer", "llm"):
                captured.clock.advance(latency)
                if fails:
                    raise ValueError
        except ValueError:
            assert fails
    node = nodes(collector)["summarizer"]
    assert (node["total_executions"], node["total_failures"]) == (3, 1)
    assert (node["total_latency_seconds"], node["average_latency_seconds"]) == (3.5, 1.167)
    assert node["failure_rate"] == 0.333
    assert [call["latency_us"] for call in captured.calls] == [1_000_000, 2_000_000, 500_000]
    assert {call["operation"] for call in captured.calls} == {"node"}


@pytest.mark.acceptance(98)
def test_cost_and_tokens_only_where_there_are_any(collector, model):
    with track_node("free", "lambda"):
        pass
    model.answers = [(GOOD, 200)]
    with track_node("paid", "llm", model="gpt-4o-mini"):
        model.ask("question")
    local = type(model)("llama", "vLLM")
    local.answers = [(GOOD, 200)]
    with track_node("own", "llm", model="llama"):
        local.ask("question")
    found = nodes(collector)
    assert "cost" not in found["free"]
    assert "token_statistics" not in found["free"]
    assert found["paid"]["cost"]["total_cost_usd"] == 0.000031  # 30.9 millionths of a dollar
    assert found["paid"]["cost"]["average_cost_per_execution"] == 0.000031
    assert found["paid"]["token_statistics"]["total_tokens"] == 68
    assert found["paid"]["token_statistics"]["avg_prompt_tokens"] == 22.0
    assert "cost" not in found["own"]
    assert found["own"]["token_statistics"]["total_tokens"] == 68


@pytest.mark.acceptance(99)
async def test_every_type_of_node(collector, captured):
    for kind in ("llm", "multi_llm", "agent"):
        with track_node(f"a_{kind}", kind, model="gpt-4o"):
            pass

    @track_node("a_lambda", "lambda")
    def function(x):
        """Doc."""
        return x

    @track_node("a_weighted_sampler", "weighted_sampler")
    async def sampler():
        return "picked"

    assert function(3) == 3
    assert (function.__name__, function.__doc__) == ("function", "Doc.")
    assert await sampler() == "picked"
    found = nodes(collector)
    kinds = ("llm", "multi_llm", "agent", "lambda", "weighted_sampler")
    assert {name: node["node_type"] for name, node in found.items()} == {
        f"a_{kind}": kind for kind in kinds
    }
    assert found["a_lambda"]["model_name"] is None
    assert found["a_weighted_sampler"]["model_name"] is None
    assert found["a_llm"]["model_name"] == "gpt-4o"
    assert [call["node"] for call in captured.calls] == [f"a_{kind}" for kind in kinds]


@pytest.mark.acceptance(100)
async def test_a_node_of_two_models(collector, model):
    models = {"small": model, "large": type(model)("gpt-4o")}

    async def ask(node, label):
        with node.child(label, model=models[label].name()):
            await models[label].ask_async("question")

    for each in models.values():
        each.answers = [(GOOD, 200)]
    async with track_node("ask", "multi_llm") as node:
        await asyncio.gather(*(ask(node, label) for label in models))
    found = nodes(collector)
    assert list(found) == ["ask_small", "ask_large", "ask"]
    assert {name: entry["node_type"] for name, entry in found.items()} == {
        "ask": "multi_llm",
        "ask_small": "llm",
        "ask_large": "llm",
    }
    assert found["ask_small"]["model_name"] == "gpt-4o-mini"
    assert found["ask_large"]["model_name"] == "gpt-4o"
    assert {entry["total_executions"] for entry in found.values()} == {1}
    assert found["ask_small"]["token_statistics"]["total_tokens"] == 68
    assert "token_statistics" not in found["ask"]  # each request counts for one node


@pytest.mark.acceptance(101)
@pytest.mark.parametrize(
    "answer",
    [
        f"{ERROR_PREFIX} the server is down",
        {"messages": [SimpleNamespace(content=f"{ERROR_PREFIX} 503")]},
        (f"{ERROR_PREFIX} x", 200),
    ],
)
def test_an_error_marker_is_a_failure(collector, captured, answer):
    @track_node("asks", "llm")
    def asks():
        return answer

    assert asks() is answer  # nothing is raised, the answer goes on
    assert nodes(collector)["asks"]["total_failures"] == 1
    assert captured.calls[-1]["status"] == "error"


@pytest.mark.acceptance(101)
def test_the_marker_is_no_failure_of_a_lambda_nor_a_good_answer_of_a_model(collector):
    with track_node("computes", "lambda") as node:
        node.answer(ERROR_PREFIX)
    with track_node("asks", "llm") as node:
        node.answer("all is well")
    found = nodes(collector)
    assert found["computes"]["total_failures"] == 0
    assert found["asks"]["total_failures"] == 0


def test_nodes_without_a_client_and_while_disabled(collector, model):
    before = api.swap(None)
    try:
        model.answers = [(GOOD, 200), (GOOD, 200)]
        with track_node("n", "llm"):
            model.ask("question")
        collector.set_enabled(False)
        with track_node("n", "llm"):
            model.ask("question")
    finally:
        api.swap(before)
    assert nodes(collector)["n"]["total_executions"] == 1
    assert nodes(collector)["n"]["token_statistics"]["total_tokens"] == 68


def test_requests_are_children_of_their_node(captured, model):
    model.answers = [(GOOD, 200)]
    with track_node("n", "llm"):
        model.ask("question")
    request, node = captured.calls
    assert request["operation"] == "chat"
    assert request["node"] == "n"
    assert request["trace_id"] == node["trace_id"]
    assert request["parent_span_id"] == node["call_id"].replace("-", "")[16:]
