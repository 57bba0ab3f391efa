"""TracingMiddleware: one span a call, what it records and what it leaves alone."""

import asyncio
import json

import pytest

from callmeter.compat.synapsekit import CostTracker, Span, TracingMiddleware
from callmeter.compat.synapsekit.switches import SWITCHES
from callmeter.testing import Capture, capture
from support.synapsekit_standins import RAG, InMemoryVectorStore, RAGConfig, StubLLM


def run(awaitable):
    return asyncio.run(awaitable)


async def streamed(wrapper, prompt):
    return [chunk async for chunk in wrapper.stream(prompt)]


def rag_over(llm) -> RAG:
    return RAG(RAGConfig(llm=llm, vector_store=InMemoryVectorStore()))


@pytest.mark.acceptance(203)
def test_every_call_makes_one_span(callmeter_capture: Capture, spans: list[Span]) -> None:
    llm = StubLLM(("one two", 12, 38))
    traced = TracingMiddleware(llm)
    assert run(traced.generate("q", temperature=0.1)) == "one two "
    assert [span.name for span in spans] == ["llm.generate"]
    assert run(streamed(traced, "q")) == ["one ", "two "]
    assert [span.name for span in spans] == ["llm.generate", "llm.stream"]
    rag = TracingMiddleware(rag_over(llm))
    assert run(rag.aquery("What is it?")) == "one two "
    assert [span.name for span in spans] == ["llm.generate", "llm.stream", "rag.aquery"]
    assert run(rag.aadd(["a text"])) == 1
    assert traced.cache_stats() == {"hits": 3}
    assert len(spans) == 3
    assert [call["name"] for call in callmeter_capture.calls] == [
        "llm.generate",
        "llm.stream",
        "rag.aquery",
    ]
    assert [call["call_id"].replace("-", "")[16:] for call in callmeter_capture.calls] == [
        span.span_id for span in spans
    ]
    assert llm.asked[0] == ("q", {"temperature": 0.1})


def test_a_model_below_a_pipeline_is_below_its_span(
    callmeter_capture: Capture, spans: list[Span]
) -> None:
    rag = TracingMiddleware(rag_over(TracingMiddleware(CostTracker(StubLLM()))))
    run(rag.aquery("q"))
    inner, outer = spans
    assert (inner.name, outer.name) == ("llm.generate", "rag.aquery")
    assert inner.parent_span_id == outer.span_id
    assert inner.trace_id == outer.trace_id


def test_two_middlewares_around_one_model_make_one_span(spans: list[Span]) -> None:
    run(TracingMiddleware(TracingMiddleware(StubLLM())).generate("q"))
    assert [span.name for span in spans] == ["llm.generate"]


@pytest.mark.acceptance(204)
def test_inputs_and_outputs_are_recorded_unless_told_not_to(
    callmeter_capture: Capture, spans: list[Span]
) -> None:
    llm = StubLLM(("the answer", 12, 38))
    run(TracingMiddleware(llm).generate("the question"))
    run(TracingMiddleware(llm, record_inputs=False).generate("the question"))
    run(TracingMiddleware(llm, record_outputs=False).generate("the question"))
    both, without_input, without_output = spans
    assert (both.attributes["input"], both.attributes["output"]) == ("the question", "the answer ")
    assert "input" not in without_input.attributes
    assert "output" not in without_output.attributes
    first, second, third = callmeter_capture.calls
    assert (first["inputs"], first["outputs"]) == ("the question", "the answer ")
    assert "the question" not in json.dumps(second)
    assert second["outputs"] == "the answer "
    assert "the answer" not in json.dumps(third)
    assert third["inputs"] == "the question"


@pytest.mark.acceptance(205)
def test_long_texts_are_cut(spans: list[Span]) -> None:
    long = "x" * 2000
    with capture() as captured:
        llm = StubLLM(("y" * 1999, 12, 38))
        run(TracingMiddleware(llm).generate(long))
        run(TracingMiddleware(llm, max_input_length=7, max_output_length=9).generate(long))
        family = "👩‍💻"  # one character to its reader, three code points
        run(TracingMiddleware(llm, max_input_length=2).generate("a" + family))
        stored = captured.calls
    assert len(spans[0].attributes["input"]) == 500
    assert spans[0].attributes["input"] == long[:500]
    assert len(spans[0].attributes["output"]) == 500
    assert spans[1].attributes["input"] == "xxxxxxx"
    assert spans[1].attributes["output"] == "y" * 9
    assert spans[2].attributes["input"] == "a"
    assert [len(call["inputs"]) for call in stored] == [500, 7, 1]
    assert llm.asked[0][0] == long


@pytest.mark.acceptance(206)
def test_an_exception_is_told_and_raised_again(
    callmeter_capture: Capture, spans: list[Span]
) -> None:
    boom = TimeoutError("the model is away")
    traced = TracingMiddleware(StubLLM(boom))
    for attempt in (traced.generate("q"), streamed(traced, "q")):
        with pytest.raises(TimeoutError) as caught:
            run(attempt)
        assert caught.value is boom
    rag = TracingMiddleware(rag_over(StubLLM(boom)))
    with pytest.raises(TimeoutError) as caught:
        run(rag.aquery("q"))
    assert caught.value is boom
    assert [span.name for span in spans] == ["llm.generate", "llm.stream", "rag.aquery"]
    for span in spans:
        assert (span.status, span.error) == ("error", "the model is away")
        (event,) = span.events
        assert event["attributes"]["exception.message"] == "the model is away"
    assert [call["status"] for call in callmeter_capture.calls] == ["error"] * 3


def test_structured_prompts_are_cut_and_redacted(spans: list[Span]) -> None:
    with capture(redact_keys=["api_key"]) as captured:
        messages = [{"role": "user", "content": "z" * 2000, "API_KEY": "sk-1"}]
        run(TracingMiddleware(StubLLM()).generate(messages))
        (call,) = captured.calls
    assert call["inputs"][0]["API_KEY"] == "[REDACTED]"
    assert len(call["inputs"][0]["content"]) == 500
    assert spans[0].attributes["input"][0]["API_KEY"] == "[REDACTED]"


def test_the_switch_keeps_prompts_out_whatever_a_wrapper_says(
    callmeter_capture: Capture, spans: list[Span]
) -> None:
    SWITCHES.inputs = False
    tracker = CostTracker(StubLLM())
    run(TracingMiddleware(tracker, record_inputs=True).generate("a secret plan"))
    assert "input" not in spans[0].attributes
    assert tracker.records[0].prompt_preview == ""
    assert "a secret plan" not in json.dumps(callmeter_capture.events)
