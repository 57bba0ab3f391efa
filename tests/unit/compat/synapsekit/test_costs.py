"""CostTracker: records, exact arithmetic, scopes."""

import asyncio
from dataclasses import fields
from datetime import UTC, datetime, timedelta

import pytest

from callmeter.compat.synapsekit import CostRecord, CostTracker, TokenTracer
from callmeter.testing import Capture
from support.synapsekit_standins import LLMConfig, StubLLM


def run(awaitable):
    return asyncio.run(awaitable)


@pytest.mark.acceptance(178)
def test_a_record_says_everything(callmeter_capture: Capture) -> None:
    tracker = CostTracker(StubLLM(("x", 1000, 500)))
    run(tracker.generate("What is RAG?"))
    (record,) = tracker.records
    names = [field.name for field in fields(CostRecord)]
    assert names[:9] == [
        "model",
        "provider",
        "input_tokens",
        "output_tokens",
        "input_cost_usd",
        "output_cost_usd",
        "total_cost_usd",
        "timestamp",
        "prompt_preview",
    ]
    assert record.model == "gpt-4o-mini"
    assert record.provider == "openai"
    assert (record.input_tokens, record.output_tokens) == (1000, 500)
    assert record.prompt_preview == "What is RAG?"
    at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(
        microseconds=callmeter_capture.calls[0]["started_us"]
    )
    assert record.timestamp == at


@pytest.mark.acceptance(179)
def test_a_preview_is_the_first_hundred_characters() -> None:
    prompt = "".join(chr(ord("a") + n % 26) for n in range(250))
    tracker = CostTracker(StubLLM())
    run(tracker.generate(prompt))
    assert tracker.records[0].prompt_preview == prompt[:100]
    assert len(tracker.records[0].prompt_preview) == 100


@pytest.mark.acceptance(180)
def test_the_arithmetic_of_a_cost() -> None:
    tracker = CostTracker(StubLLM(("x", 1000, 500)))
    run(tracker.generate("q"))
    (record,) = tracker.records
    assert record.input_cost_usd == 0.00015
    assert record.output_cost_usd == 0.0003
    assert record.total_cost_usd == 0.00045
    assert record.total_cost_usd == pytest.approx(
        record.input_cost_usd + record.output_cost_usd, abs=1e-18
    )


@pytest.mark.acceptance(181)
def test_cost_so_far_is_the_sum_until_it_is_reset() -> None:
    tracker = CostTracker(StubLLM(("x", 1000, 500)))
    for _ in range(10):
        run(tracker.generate("q"))
    assert len(tracker.records) == 10
    assert tracker.cost_so_far == 0.0045
    assert tracker.cost_so_far == pytest.approx(sum(r.total_cost_usd for r in tracker.records))
    tracker.reset()
    assert tracker.cost_so_far == 0
    assert tracker.records == []


@pytest.mark.acceptance(182)
def test_a_currency_is_only_shown() -> None:
    assert CostTracker(StubLLM()).currency == "USD"
    tracker = CostTracker(StubLLM(("x", 1000, 500)), currency="EUR")
    run(tracker.generate("q"))
    assert tracker.currency == "EUR"
    assert tracker.records[0].total_cost_usd == 0.00045
    assert tracker.cost_so_far == 0.00045


@pytest.mark.acceptance(183)
def test_a_model_without_a_price_costs_nothing_and_is_kept(callmeter_capture: Capture) -> None:
    llm = StubLLM(("x", 1000, 500), config=LLMConfig(model="nobody-sells-this"))
    tracker = CostTracker(llm)
    run(tracker.generate("q"))
    (record,) = tracker.records
    assert record.total_cost_usd == record.input_cost_usd == record.output_cost_usd == 0.0
    assert (record.input_tokens, record.output_tokens) == (1000, 500)
    (call,) = callmeter_capture.calls
    assert "cost_pico" not in call


def test_a_failed_call_leaves_no_record() -> None:
    tracker = CostTracker(StubLLM(ValueError("boom")))
    with pytest.raises(ValueError, match="boom"):
        run(tracker.generate("q"))
    assert tracker.records == []


@pytest.mark.acceptance(184)
def test_scopes_are_exact_with_tasks_at_the_same_time(callmeter_capture: Capture) -> None:
    llm = StubLLM(("x", 1000, 500))
    tracker = CostTracker(llm)
    met = asyncio.Barrier(5)
    llm.while_asked = met.wait  # no call is answered before all five are under way

    async def scoped(*names: str) -> None:
        if not names:
            await tracker.generate("q")
            return
        with tracker.scope(names[0]):
            await scoped(*names[1:])

    async def all_at_once() -> None:
        await asyncio.gather(scoped("a", "b"), scoped("a", "b"), scoped("a"), scoped("c"), scoped())

    run(all_at_once())
    totals = tracker.scopes
    assert {path: total.calls for path, total in totals.items()} == {
        "a/b": 2,
        "a": 1,
        "c": 1,
        "(root)": 1,
    }
    assert (totals["a/b"].input_tokens, totals["a/b"].output_tokens) == (2000, 1000)
    assert totals["a/b"].cost_usd == 0.0009
    assert (totals["(root)"].input_tokens, totals["(root)"].output_tokens) == (1000, 500)
    assert totals["(root)"].cost_usd == 0.00045
    assert sorted(c.get("attributes", {}).get("scope", "") for c in callmeter_capture.calls) == [
        "",
        "a",
        "a/b",
        "a/b",
        "c",
    ]


def test_wrappers_in_any_order_ask_once_and_meter_once(callmeter_capture: Capture) -> None:
    for outer, inner in ((CostTracker, TokenTracer), (TokenTracer, CostTracker)):
        llm = StubLLM(("x", 1000, 500))
        below = inner(llm)
        above = outer(below)
        assert run(above.generate("q")) == "x "
        assert len(llm.asked) == 1
        tracker, tracer = (above, below) if outer is CostTracker else (below, above)
        assert len(tracker.records) == 1
        assert tracer.tokens_used["total"] == 1500
    assert len(callmeter_capture.calls) == 2
