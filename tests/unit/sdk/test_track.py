"""``track`` keeps a function's kind and nature, and meters every invocation."""

import asyncio
import inspect

import pytest

import callmeter
from callmeter.testing import Capture, capture


def names(captured: Capture) -> list[str]:
    return [event["name"].rpartition(".")[2] for event in captured.calls]


def test_a_function_keeps_its_name_docstring_and_signature() -> None:
    @callmeter.track
    def answer(question: str, *, loud: bool = False) -> str:
        """Answer it."""
        return question

    assert answer.__name__ == "answer"
    assert answer.__doc__ == "Answer it."
    assert str(inspect.signature(answer)) == "(question: str, *, loud: bool = False) -> str"


def test_a_function_and_what_happens_inside(captured: Capture) -> None:
    @callmeter.track(name="answer", operation="node")
    def answer(question: str) -> str:
        with callmeter.generation("inner", model="m"):
            return question.upper()

    assert answer("why") == "WHY"
    inner, outer = captured.calls
    assert (outer["name"], outer["operation"]) == ("answer", "node")
    assert inner["parent_span_id"] == outer["call_id"].replace("-", "")[16:]
    assert "inputs" not in outer


def test_arguments_and_result_are_recorded_when_told(captured: Capture) -> None:
    class Agent:
        @callmeter.track(record_inputs=True, record_outputs=True)
        def answer(self, question: str, n: int = 2, *rest: int) -> list[str]:
            return [question] * n

    Agent().answer("why", 3, 4)
    (event,) = captured.calls
    assert event["inputs"] == {"question": "why", "n": 3, "rest": [4]}
    assert event["outputs"] == ["why"] * 3


def test_the_setting_decides_and_a_function_may_refuse() -> None:
    @callmeter.track
    def follows(a: int) -> int:
        return a

    @callmeter.track(record_inputs=False, record_outputs=False)
    def refuses(a: int) -> int:
        return a

    with capture(record_inputs=True, record_outputs=True) as captured:
        follows(1)
        refuses(2)
        first, second = captured.calls
    assert (first["inputs"], first["outputs"]) == ({"a": 1}, 1)
    assert "inputs" not in second
    assert "outputs" not in second


def test_an_exception_reaches_the_caller(captured: Capture) -> None:
    @callmeter.track
    def fails() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        fails()
    assert captured.calls[0]["error_type"] == "KeyError"


async def test_a_coroutine_and_its_cancellation(captured: Capture) -> None:
    @callmeter.track
    async def waits() -> None:
        await asyncio.sleep(60)

    assert inspect.iscoroutinefunction(waits)
    task = asyncio.create_task(waits())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert captured.calls[0]["status"] == "cancelled"


def test_a_generator_is_metered_to_its_end(captured: Capture) -> None:
    @callmeter.track(record_outputs=True)
    def stream(n: int):
        captured.clock.advance(0.2)
        for i in range(n):
            with callmeter.generation(f"step{i}", model="m"):
                pass
            got = yield i
            assert got is None
            captured.clock.advance(0.4)
        return "end"

    assert inspect.isgeneratorfunction(stream)

    def outside():
        result = yield from stream(2)
        assert result == "end"

    items = []
    for item in outside():
        items.append(item)
        with callmeter.generation("between", model="m"):
            pass
    assert items == [0, 1]
    calls = captured.calls
    stream_call = calls[-1]
    assert (stream_call["ttft_us"], stream_call["latency_us"]) == (200_000, 1_000_000)
    assert stream_call["outputs"] == [0, 1]
    span = stream_call["call_id"].replace("-", "")[16:]
    parents = {event["name"]: event.get("parent_span_id") for event in calls}
    assert parents["step0"] == parents["step1"] == span
    assert parents["between"] is None  # the consumer's own calls are not the stream's children


def test_a_generator_takes_what_is_sent_and_thrown(captured: Capture) -> None:
    @callmeter.track
    def echo():
        got = yield "ready"
        while True:
            try:
                got = yield got
            except ValueError as exc:
                got = str(exc)

    stream = echo()
    assert next(stream) == "ready"
    assert stream.send("a") == "a"
    assert stream.throw(ValueError("thrown")) == "thrown"
    with pytest.raises(KeyError):
        stream.throw(KeyError("out"))
    assert captured.calls[0]["error_type"] == "KeyError"


def test_an_abandoned_generator_ends_as_cancelled_and_cleans_up(captured: Capture) -> None:
    closed = []

    @callmeter.track
    def stream():
        try:
            yield 1
            yield 2
        finally:
            closed.append(True)

    for _ in stream():
        break
    assert closed == [True]
    (event,) = captured.calls
    assert event["status"] == "cancelled"


async def test_an_async_generator(captured: Capture) -> None:
    @callmeter.track
    async def stream(n: int):
        for i in range(n):
            async with callmeter.generation(f"step{i}", model="m"):
                await asyncio.sleep(0)
            yield i

    assert inspect.isasyncgenfunction(stream)
    items = []
    async for item in stream(2):
        items.append(item)
        with callmeter.generation("between", model="m"):
            pass
    assert items == [0, 1]
    calls = {event["name"]: event for event in captured.calls}
    outer = captured.calls[-1]
    span = outer["call_id"].replace("-", "")[16:]
    assert calls["step0"]["parent_span_id"] == calls["step1"]["parent_span_id"] == span
    assert "parent_span_id" not in calls["between"]


async def test_an_abandoned_async_generator(captured: Capture) -> None:
    @callmeter.track
    async def stream():
        yield 1
        yield 2

    iterator = stream()
    assert await anext(iterator) == 1
    await iterator.aclose()
    assert captured.calls[0]["status"] == "cancelled"


async def test_an_async_generator_that_fails(captured: Capture) -> None:
    @callmeter.track
    async def stream():
        yield 1
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        async for _ in stream():
            pass
    assert captured.calls[0]["error_type"] == "RuntimeError"


def test_before_init_a_tracked_function_just_runs() -> None:
    from callmeter.sdk import api

    @callmeter.track
    def answer() -> int:
        return 42

    before = api.swap(None)
    try:
        assert answer() == 42
    finally:
        api.swap(before)
