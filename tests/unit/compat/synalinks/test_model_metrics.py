"""Metrics of language and embedding models, row by row."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from callmeter.compat import synalinks
from callmeter.compat.synalinks import metrics
from callmeter.compat.synalinks.scope import phase_wall_ns
from callmeter.testing import Capture, capture
from support.synalinks_standins import (
    DataModel,
    EmbeddingModel,
    Gate,
    LanguageModel,
    Program,
    Reply,
    synalinks_engine,
)

__all__ = ["synalinks_engine"]  # a fixture

X = DataModel(q=1)


@pytest.fixture
def captured(synalinks_engine: Any) -> Iterator[Capture]:
    with capture() as kept:
        synalinks.instrument()
        yield kept


def program_of(*models: Any) -> Program:
    return Program(modules=list(models))


def bound(program: Program, *kinds: Any) -> list[Any]:
    made = [kind() for kind in kinds]
    for metric in made:
        metric.bind_program(program)
    return made


def values(made: list[Any]) -> list[float]:
    return [metric.result() for metric in made]


def infer(model: Any, times: int) -> None:
    async def run() -> None:
        with synalinks.op_scope("inference"):
            for _ in range(times):
                await model(X)

    asyncio.run(run())


@pytest.mark.acceptance(24)
def test_token_metrics(captured: Capture) -> None:
    model = LanguageModel(script=[Reply(100, 20), Reply(200, 50)])
    made = bound(
        program_of(model),
        metrics.InputTokens,
        metrics.OutputTokens,
        metrics.TotalTokens,
        metrics.AvgInputTokensPerCall,
        metrics.AvgOutputTokensPerCall,
    )
    infer(model, 2)
    assert values(made) == [300, 70, 370, 150.0, 35.0]
    told = [call["usage"] for call in captured.calls]
    assert told == [{"input": 100, "output": 20}, {"input": 200, "output": 50}]


@pytest.mark.acceptance(25)
def test_throughput_is_on_the_wall_clock_and_latency_is_a_calls_own(captured: Capture) -> None:
    async def run(model: LanguageModel, gate: Gate) -> None:
        with synalinks.op_scope("inference"):
            at_once = asyncio.gather(model(X), model(X))
            await gate.all_here()
            captured.clock.advance(2.0)
            gate.opened.set()
            await at_once

    async def both() -> None:
        gate = Gate(2)
        model.script = [Reply(400, 100, meanwhile=gate.wait) for _ in range(2)]
        await run(model, gate)

    model = LanguageModel()
    made = bound(program_of(model), metrics.TokensPerSecond, metrics.AvgLatency, metrics.Throughput)
    asyncio.run(both())
    assert values(made) == [500.0, 2.0, 1.0]


@pytest.mark.acceptance(26)
def test_cache_and_reasoning_ratios(captured: Capture) -> None:
    model = LanguageModel(script=[Reply(200, 100, cached=60, reasoning=30)])
    made = bound(program_of(model), metrics.CacheHitRate, metrics.ReasoningTokenShare)
    assert values(made) == [0.0, 0.0]  # nothing to divide by
    infer(model, 1)
    assert values(made) == [0.3, 0.3]
    (call,) = captured.calls
    assert call["usage"] == {"input": 200, "output": 100, "cache_read": 60, "reasoning": 30}


@pytest.mark.acceptance(27)
def test_error_rate_counts_calls_and_not_retries(captured: Capture) -> None:
    down = ValueError("down")
    model = LanguageModel(
        script=[Reply(1, 1), down, down, Reply(1, 1), Reply(1, 1), down, down, down], retry=3
    )
    made = bound(program_of(model), metrics.FailedCalls, metrics.ErrorRate)
    assert values(made) == [0, 0.0]
    infer(model, 4)
    assert model.attempts == 8
    assert values(made) == [1, 0.25]
    assert [call["status"] for call in captured.calls] == ["ok", "ok", "ok", "error"]


def timed_chunks(kept: Capture, *steps: float) -> Callable[[], AsyncIterator[dict[str, str]]]:
    async def chunks() -> AsyncIterator[dict[str, str]]:
        for step in steps:
            kept.clock.advance(step)
            yield {"content": "word"}

    return chunks


@pytest.mark.acceptance(28)
def test_streaming_latency_to_the_first_and_the_last_token(captured: Capture) -> None:
    model = LanguageModel(script=[Reply(chunks=timed_chunks(captured, 0.2, 0.3, 0.5))])
    made = bound(program_of(model), metrics.AvgTimeToFirstToken, metrics.AvgTimeToLastToken)

    async def read() -> None:
        with synalinks.op_scope("inference"):
            async for _ in await model(X):
                pass

    asyncio.run(read())
    assert values(made) == [0.2, 1.0]
    (call,) = captured.calls
    assert (call["ttft_us"], call["latency_us"], call["status"]) == (200_000, 1_000_000, "ok")


@pytest.mark.acceptance(28)
@pytest.mark.parametrize("how", ["closed", "forgotten"])
def test_an_abandoned_stream_adds_nothing(captured: Capture, how: str) -> None:
    model = LanguageModel(script=[Reply(chunks=timed_chunks(captured, 0.2, 0.3))])
    made = bound(
        program_of(model), metrics.AvgTimeToFirstToken, metrics.AvgTimeToLastToken,
        metrics.FailedCalls, metrics.AvgLatency,
    )  # fmt: skip

    async def give_up() -> None:
        with synalinks.op_scope("inference"):
            stream = await model(X)
            await anext(stream)
            if how == "closed":
                await stream.aclose()
            else:
                del stream
                gc.collect()

    asyncio.run(give_up())
    assert values(made) == [0.0, 0.0, 0, 0.0]
    assert model.cumulated_streaming_calls == 0
    (call,) = captured.calls
    assert call["status"] == "cancelled"


@pytest.mark.acceptance(29)
def test_a_nested_phase_takes_its_time_from_the_one_around_it(captured: Capture) -> None:
    before = {phase: phase_wall_ns(phase) for phase in ("reward", "optimizer")}
    with synalinks.op_scope("optimizer"):
        captured.clock.advance(2)
        with synalinks.op_scope("reward"):
            captured.clock.advance(3)
        captured.clock.advance(4)
    spent = {phase: (phase_wall_ns(phase) - ns) / 1e9 for phase, ns in before.items()}
    assert spent == {"reward": 3.0, "optimizer": 6.0}
    told: dict[str, float] = {}
    for metric in captured.metrics:
        assert metric["name"] == "synalinks.phase_seconds"
        phase = metric["labels"]["phase"]
        told[phase] = told.get(phase, 0.0) + metric["value"]
    assert told == {"optimizer": 6.0, "reward": 3.0}


@pytest.mark.acceptance(30)
def test_embedding_metrics(captured: Capture) -> None:
    model = EmbeddingModel(script=[Reply(15, vectors=3), Reply(25, vectors=5)])
    made = bound(
        program_of(model),
        metrics.EmbeddingVectors,
        metrics.AvgEmbeddingVectorsPerCall,
        metrics.EmbeddingTokens,
    )
    infer(model, 2)
    assert values(made) == [8, 4.0, 40]
    assert [call["operation"] for call in captured.calls] == ["embeddings", "embeddings"]
    assert [call["attributes"]["vectors"] for call in captured.calls] == ["3", "5"]


def test_calls_of_one_model_at_the_same_time_keep_their_own_cost(captured: Capture) -> None:
    """A cost that the engine leaves on the model is not taken for that of a call without one."""

    async def run() -> None:
        gate = Gate(2)
        model.script = [
            Reply(1, 1, cost=0.5, meanwhile=gate.wait),
            Reply(2, 2, meanwhile=gate.wait),
        ]
        at_once = asyncio.gather(model(X), model(X))
        await gate.all_here()
        gate.opened.set()
        await at_once

    model = LanguageModel()
    asyncio.run(run())
    told = {call["usage"]["input"]: call.get("cost_pico") for call in captured.calls}
    assert told == {1: "500000000000", 2: None}
    assert model.cumulated_cost == 0.5


def test_metering_is_taken_away_again(synalinks_engine: Any) -> None:
    model = LanguageModel(script=[Reply(1, 1), Reply(1, 1), Reply(1, 1)])
    with capture() as kept:
        asyncio.run(model(X))
        undo = synalinks.instrument()
        asyncio.run(model(X))
        assert len(kept.calls) == 1
        undo()
        asyncio.run(model(X))
        assert len(kept.calls) == 1
    assert not hasattr(model, "cumulated_cost")


def test_a_class_below_one_that_is_metered_is_metered_once(captured: Capture) -> None:
    program = Program(name="once")
    undo = synalinks.instrument(Program)
    asyncio.run(program(X))
    undo()
    assert [call["name"] for call in captured.calls] == ["once"]
    asyncio.run(program(X))
    assert len(captured.calls) == 2  # what the engine had before stays
