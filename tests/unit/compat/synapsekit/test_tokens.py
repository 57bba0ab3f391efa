"""TokenTracer: totals, transparency, quality."""

import asyncio

import pytest

from callmeter.compat.synapsekit import TokenTracer
from callmeter.testing import Capture
from support.synapsekit_standins import StubLLM


def run(awaitable):
    return asyncio.run(awaitable)


async def streamed(wrapper, prompt, **kwargs):
    return [chunk async for chunk in wrapper.stream(prompt, **kwargs)]


@pytest.mark.acceptance(173)
def test_tokens_add_up_until_they_are_reset(callmeter_capture: Capture) -> None:
    tracer = TokenTracer(StubLLM(("x", 12, 38), ("y", 3, 4)))
    run(tracer.generate("q"))
    assert tracer.tokens_used == {"input": 12, "output": 38, "total": 50}
    run(tracer.generate("q"))
    assert tracer.tokens_used == {"input": 15, "output": 42, "total": 57}
    tracer.reset()
    assert tracer.tokens_used == {"input": 0, "output": 0, "total": 0}
    assert [call["usage"] for call in callmeter_capture.calls] == [
        {"input": 12, "output": 38},
        {"input": 3, "output": 4},
    ]


def test_tokens_used_before_the_wrapper_are_not_counted() -> None:
    llm = StubLLM(("x", 12, 38))
    run(llm.generate("unwrapped"))
    tracer = TokenTracer(llm)
    run(tracer.generate("q"))
    assert tracer.tokens_used == {"input": 12, "output": 38, "total": 50}


@pytest.mark.acceptance(174)
def test_generate_is_passed_through(callmeter_capture: Capture) -> None:
    boom = ValueError("boom")
    llm = StubLLM(("the answer", 5, 6), boom)
    tracer = TokenTracer(llm)
    assert run(tracer.generate("q", temperature=0.3, stop=["a"])) == "the answer "
    assert llm.asked == [("q", {"temperature": 0.3, "stop": ["a"]})]
    with pytest.raises(ValueError) as caught:
        run(tracer.generate("q"))
    assert caught.value is boom
    assert tracer.tokens_used == {"input": 5, "output": 6, "total": 11}
    assert [call["status"] for call in callmeter_capture.calls] == ["ok", "error"]


def test_a_failed_call_leaves_nothing_for_the_next() -> None:
    llm = StubLLM(("x", 1, 1))

    class Counting(StubLLM):
        async def generate(self, prompt, **kwargs):
            answer = await super().generate(prompt, **kwargs)
            if prompt == "bad":
                raise ValueError(prompt)
            return answer

    llm = Counting(("x", 7, 7), ("y", 2, 3))
    tracer = TokenTracer(llm)
    with pytest.raises(ValueError):
        run(tracer.generate("bad"))
    run(tracer.generate("good"))
    assert tracer.tokens_used == {"input": 2, "output": 3, "total": 5}


@pytest.mark.acceptance(175)
def test_a_stream_is_passed_through_and_counted_at_its_end(callmeter_capture: Capture) -> None:
    tracer = TokenTracer(StubLLM(("one two three", 12, 38)))

    async def read():
        seen = []
        async for chunk in tracer.stream("q", temperature=1):
            seen.append(chunk)
            assert tracer.tokens_used["total"] == 0
        return seen

    assert run(read()) == ["one ", "two ", "three "]
    assert tracer.tokens_used == {"input": 12, "output": 38, "total": 50}
    (call,) = callmeter_capture.calls
    assert call["usage"] == {"input": 12, "output": 38}
    assert "ttft_us" in call


def test_an_abandoned_stream_closes_the_models_and_counts_nothing(
    callmeter_capture: Capture,
) -> None:
    llm = StubLLM(("one two three", 12, 38))
    tracer = TokenTracer(llm)

    async def read_one():
        stream = tracer.stream("q")
        first = await anext(stream)
        await stream.aclose()
        return first

    assert run(read_one()) == "one "
    assert llm.closed_streams == 1
    assert tracer.tokens_used["total"] == 0
    assert [call["status"] for call in callmeter_capture.calls] == ["cancelled"]


@pytest.mark.acceptance(176)
def test_a_disabled_tracer_records_nothing_and_asks_all_the_same() -> None:
    tracer = TokenTracer(StubLLM(("an answer", 12, 38)), enabled=False)
    assert run(tracer.generate("q")) == "an answer "
    assert run(streamed(tracer, "q")) == ["an ", "answer "]
    tracer.record_quality(0.5)
    assert tracer.tokens_used == {"input": 0, "output": 0, "total": 0}
    assert tracer.quality_trend == "stable"


@pytest.mark.acceptance(177)
@pytest.mark.parametrize(
    ("scores", "trend"),
    [
        ([0.2, 0.3, 0.8, 0.9], "improving"),
        ([0.9, 0.8, 0.3, 0.2], "degrading"),
        ([0.2, 0.3, 0.9], "stable"),
        ([0.5, 0.5, 0.5, 0.5], "stable"),
        ([0.9, 0.9, 0.2, 0.3, 0.8, 0.9], "improving"),
    ],
)
def test_the_trend_of_a_window_of_four(scores, trend) -> None:
    tracer = TokenTracer(StubLLM(), quality_window=4)
    for score in scores:
        tracer.record_quality(score)
    assert tracer.quality_trend == trend


def test_other_names_are_the_models_own() -> None:
    assert TokenTracer(StubLLM()).cache_stats() == {"hits": 3}
    with pytest.raises(AttributeError):
        _ = TokenTracer(StubLLM()).no_such_thing
