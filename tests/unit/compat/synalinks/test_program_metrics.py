"""Program metrics, row by row, over a manual clock and scripted models."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from callmeter.compat import synalinks
from callmeter.compat.synalinks import metrics
from callmeter.compat.synalinks.metrics import (
    ProgramAvgCostPerInvocation,
    ProgramCalls,
    ProgramCallsPerSecond,
    ProgramCost,
    ProgramElapsedTime,
    ProgramOperationalMetric,
)
from callmeter.testing import Capture
from support.synalinks_programs import (
    X,
    asking,
    bound,
    captured,
    infer,
    lasting,
    lm,
    synalinks_engine,
)
from support.synalinks_standins import (
    EmbeddingModel,
    Gate,
    Generator,
    Program,
)

__all__ = ["captured", "synalinks_engine"]  # fixtures

FIVE = (
    ProgramCalls,
    ProgramElapsedTime,
    ProgramCallsPerSecond,
    ProgramCost,
    ProgramAvgCostPerInvocation,
)


@pytest.mark.acceptance(1)
def test_4_invocations_with_3_model_calls_each_are_4(captured: Capture) -> None:
    model = lm(*[0.001] * 12)
    program = asking(model, model, model)
    calls = bound(ProgramCalls, program)
    infer(*(program(X) for _ in range(4)))
    assert calls.result() == 4
    assert type(calls.result()) is int
    assert program.inference_cumulated_invocations == 4
    assert program.inference_cumulated_invocation_elapsed_s == 0.0
    programs = [call for call in captured.calls if call["operation"] == "program"]
    assert len(programs) == 4
    assert len(captured.calls) == 4 + 12


@pytest.mark.acceptance(1)
def test_elapsed_time_is_readable_on_the_program(captured: Capture) -> None:
    program = Program(lasting(captured, 1.5))
    bound(ProgramElapsedTime, program)
    infer(program(X))
    assert program.inference_cumulated_invocation_elapsed_s == 1.5


@pytest.mark.acceptance(2)
def test_only_the_entry_module_counts(captured: Capture) -> None:
    b = Program(name="B")
    a = Program(b, [b], name="A")
    a_calls, b_calls = bound(ProgramCalls, a), bound(ProgramCalls, b)
    infer(a(X))
    assert (a_calls.result(), b_calls.result()) == (1, 0)
    infer(b(X))
    assert (a_calls.result(), b_calls.result()) == (1, 1)


@pytest.mark.acceptance(3)
def test_elapsed_time_is_the_invocations_own(captured: Capture) -> None:
    """Nested calls overlap and sum to 10 s in each invocation: that sum is no part of it."""

    async def overlapping(*ends: float) -> None:
        events = {end: asyncio.Event() for end in ends}
        inner = Program(lambda end: events[end].wait(), name="inner")
        nested = [asyncio.create_task(inner(end)) for end in ends]
        await asyncio.sleep(0)  # all have begun
        now = 0.0
        for end in sorted(events):
            captured.clock.advance(end - now)
            now = end
            events[end].set()
            await asyncio.gather(*(nested[n] for n, each in enumerate(ends) if each == end))

    program = Program(overlapping, name="outer")
    elapsed = bound(ProgramElapsedTime, program)
    first, second = [1.5] * 6 + [1.0], [2.0] * 5
    assert sum(first) == sum(second) == 10.0
    infer(program(*first), program(*second))
    assert elapsed.result() == 3.5
    nested_us = sum(c["latency_us"] for c in captured.calls if c["name"] == "inner")
    assert nested_us == 20_000_000


@pytest.mark.acceptance(4)
def test_a_failed_invocation_counts_with_its_time_and_is_raised(captured: Capture) -> None:
    async def fail(x: Any) -> Any:
        captured.clock.advance(0.7)
        raise ValueError("boom")

    program = Program(fail)
    calls, elapsed = bound(ProgramCalls, program), bound(ProgramElapsedTime, program)
    with pytest.raises(ValueError, match="boom"):
        infer(program(X))
    assert calls.result() == 1
    assert elapsed.result() == 0.7
    (call,) = captured.calls
    assert (call["status"], call["error_message"]) == ("error", "boom")


@pytest.mark.acceptance(5)
def test_10_calls_in_2_seconds_are_5_a_second(captured: Capture) -> None:
    program = Program(lasting(captured, 0.2))
    rate = bound(ProgramCallsPerSecond, program)
    infer(*(program(X) for _ in range(10)))
    assert rate.result() == 5.0


@pytest.mark.acceptance(6)
def test_calls_per_second_of_nothing_are_0(captured: Capture) -> None:
    program = Program(lasting(captured, 0.0))
    rate = bound(ProgramCallsPerSecond, program)
    assert rate.result() == 0.0  # no invocations
    infer(program(X))
    assert rate.result() == 0.0  # no time


@pytest.mark.acceptance(7)
def test_overlapping_invocations_are_summed(captured: Capture) -> None:
    async def run() -> None:
        with synalinks.op_scope("inference"):
            gate = Gate(4)
            program.work = lambda *_: gate.wait()
            at_once = asyncio.gather(*(program(X) for _ in range(4)))
            await gate.all_here()
            captured.clock.advance(1.0)
            gate.opened.set()
            await at_once

    program = Program()
    elapsed, rate = bound(ProgramElapsedTime, program), bound(ProgramCallsPerSecond, program)
    asyncio.run(run())
    assert elapsed.result() == 4.0
    assert rate.result() == 1.0


@pytest.mark.acceptance(17)
def test_what_was_before_the_run_does_not_count(captured: Capture) -> None:
    model = lm(*[0.1] * 10, 0.001)
    program = asking(model)
    seconds = [0.5] * 10 + [0.1]

    async def work(x: Any) -> Any:
        captured.clock.advance(seconds.pop(0))
        return await model(x)

    program.work = work
    infer(*(program(X) for _ in range(10)))
    assert program.inference_cumulated_invocation_elapsed_s == 5.0
    assert model.inference_cumulated_cost == 1.0
    run = [bound(kind, program) for kind in (ProgramCalls, ProgramElapsedTime, ProgramCost)]
    assert [metric.result() for metric in run] == [0, 0.0, 0.0]
    infer(program(X))
    assert [metric.result() for metric in run] == [1, 0.1, 0.001]


@pytest.mark.acceptance(18)
def test_reset_state_starts_again_and_all_time_totals_stay(captured: Capture) -> None:
    program = Program()
    calls = bound(ProgramCalls, program)
    infer(*(program(X) for _ in range(3)))
    assert calls.result() == 3
    calls.reset_state()
    assert calls.result() == 0
    infer(program(X))
    assert calls.result() == 1
    assert program.cumulated_invocations == 4


@pytest.mark.acceptance(19)
def test_an_unbound_metric_is_0() -> None:
    assert ProgramCalls().result() == 0
    assert ProgramCost().result() == 0.0
    assert [kind().result() for kind in FIVE] == [0, 0.0, 0.0, 0.0, 0.0]


@pytest.mark.acceptance(20)
def test_names_and_types(captured: Capture) -> None:
    assert [kind().name for kind in FIVE] == [
        "program_calls",
        "program_elapsed_time",
        "program_calls_per_second",
        "program_cost",
        "program_avg_cost_per_invocation",
    ]
    program = asking(lm(1.0))
    five = [bound(kind, program) for kind in FIVE]
    assert [type(metric.result()) for metric in five] == [int, float, float, float, float]
    infer(program(X))
    assert [type(metric.result()) for metric in five] == [int, float, float, float, float]
    assert ProgramCost(name="mine").name == "mine"


@pytest.mark.acceptance(21)
@pytest.mark.parametrize("kind", FIVE)
def test_config_and_direction(kind: type[ProgramOperationalMetric]) -> None:
    assert kind(name="mine").get_config() == {"name": "mine"}
    assert kind.from_config(kind(name="mine").get_config()).name == "mine"
    assert kind().direction == "down"


@pytest.mark.acceptance(22)
def test_update_state_changes_nothing(captured: Capture) -> None:
    program = asking(lm(1.0))
    five = [bound(kind, program) for kind in FIVE]
    infer(program(X))
    before = [metric.result() for metric in five]
    assert before[0] == 1

    async def feed() -> None:
        for metric in five:
            await metric.update_state(["label"], ["prediction"], sample_weight=2)

    asyncio.run(feed())
    assert [metric.result() for metric in five] == before


@pytest.mark.acceptance(23)
def test_reachable_models_are_listed_with_fallbacks_each_once() -> None:
    second = lm(name="second")
    shared = lm(name="shared", fallback=second)
    spare = EmbeddingModel(name="spare")
    embedder = EmbeddingModel(name="embedder", fallback=spare)
    deep = Program(modules=[Generator(shared), embedder], name="deep")
    program = Program(modules=[Generator(shared), deep, second])
    metric = bound(ProgramCost, program)
    assert metric.program is program
    assert metric.language_models == [shared, second]
    assert metric.embedding_models == [embedder, spare]


def test_the_names_of_the_document_are_there() -> None:
    assert {kind.__name__ for kind in FIVE} <= set(metrics.__all__)
    with pytest.raises(TypeError):
        ProgramOperationalMetric().result()
