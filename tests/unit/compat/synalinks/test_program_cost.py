"""What a program costs, by phase, and the budget that stops its training."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from callmeter.compat import synalinks
from callmeter.compat.synalinks.metrics import (
    ProgramAvgCostPerInvocation,
    ProgramCalls,
    ProgramCost,
)
from callmeter.testing import Capture
from support.synalinks_programs import (
    X,
    asking,
    bound,
    captured,
    infer,
    lm,
    of_phase,
    synalinks_engine,
)
from support.synalinks_standins import (
    EmbeddingModel,
    Generator,
    LanguageModel,
    Program,
    Reply,
)

__all__ = ["captured", "synalinks_engine"]  # fixtures


@pytest.mark.acceptance(8)
def test_cost_is_that_of_language_and_embedding_models(captured: Capture) -> None:
    embedder = EmbeddingModel("openai/text-embedding-3-small", [Reply(40, cost=0.0002, vectors=3)])
    program = asking(lm(0.01), embedder)
    cost = bound(ProgramCost, program)
    infer(program(X))
    assert abs(cost.result() - 0.0102) < 1e-9
    told = [int(call["cost_pico"]) for call in captured.calls if "cost_pico" in call]
    assert sum(told) == 10_200_000_000


@pytest.mark.acceptance(9)
def test_cost_over_several_models(captured: Capture) -> None:
    program = asking(
        lm(0.001),
        lm(0.002),
        EmbeddingModel(script=[Reply(4, cost=0.0001)]),
        EmbeddingModel(script=[Reply(4, cost=0.0002)]),
    )
    cost = bound(ProgramCost, program)
    infer(program(X))
    assert cost.result() == 0.0033


@pytest.mark.acceptance(10)
def test_the_fallback_chain_is_followed_to_its_end(captured: Capture) -> None:
    third = lm(0.004, name="third")
    fallback = LanguageModel(
        script=[Reply(1, 1, cost=0.002), ValueError("down")], retry=1, fallback=third
    )
    primary = LanguageModel(
        script=[Reply(1, 1, cost=0.001), ValueError("down"), ValueError("down")],
        retry=1,
        fallback=fallback,
    )
    program = asking(primary)
    cost = bound(ProgramCost, program)
    infer(program(X))  # the primary answers
    infer(program(X))  # its fallback does
    assert cost.result() == 0.003
    infer(program(X))  # the third of the chain
    assert cost.result() == 0.007


@pytest.mark.acceptance(11)
def test_a_shared_model_is_counted_once(captured: Capture) -> None:
    shared = lm(0.01)
    first, second = Generator(shared, name="first"), Generator(shared, name="second")
    program = Program(first, [first, second])
    cost = bound(ProgramCost, program)
    infer(program(X))
    assert cost.result() == 0.01


@pytest.mark.acceptance(12)
def test_average_cost(captured: Capture) -> None:
    program = asking(lm(0.006, 0.006, 0.006, 0.006))
    average, cost = bound(ProgramAvgCostPerInvocation, program), bound(ProgramCost, program)
    infer(*(program(X) for _ in range(4)))
    assert cost.result() == 0.024
    assert average.result() == 0.006


@pytest.mark.acceptance(13)
def test_average_cost_without_calls_is_0(captured: Capture) -> None:
    model = lm(0.5)
    program = asking(model)
    average, cost = bound(ProgramAvgCostPerInvocation, program), bound(ProgramCost, program)
    infer(model(X))  # the model alone: no invocation of the program
    assert cost.result() == 0.5
    assert average.result() == 0.0


@pytest.mark.acceptance(14)
def test_a_call_without_cost_counts_and_adds_0(captured: Capture) -> None:
    model = lm(0.25, None)
    program = asking(model, model)
    calls, cost = bound(ProgramCalls, program), bound(ProgramCost, program)
    infer(program(X))
    assert (calls.result(), cost.result()) == (1, 0.25)
    assert model.inference_cumulated_calls == 2
    told = [call.get("cost_pico") for call in captured.calls if call["operation"] == "chat"]
    assert told == ["250000000000", None]  # null stays unknown on the record


@pytest.mark.acceptance(15)
def test_phases_are_separate(captured: Capture) -> None:
    program = asking(lm(1.0, 2.0, 3.0))
    views = [of_phase(ProgramCost, p, program) for p in ("inference", "reward", "optimizer")]
    infer(program(X), phase="inference")
    infer(program(X), phase="reward")
    infer(program(X), phase="optimizer")
    assert [view.result() for view in views] == [1, 2, 3]
    assert [call["phase"] for call in captured.calls if call["operation"] == "chat"] == [
        "inference",
        "reward",
        "optimizer",
    ]


@pytest.mark.acceptance(16)
def test_a_call_outside_any_phase_is_in_the_all_time_totals_alone(captured: Capture) -> None:
    program = asking(lm(1.0))
    phases = ("inference", "reward", "optimizer")
    counted = [of_phase(ProgramCalls, phase, program) for phase in (*phases, None)]
    costs = [of_phase(ProgramCost, phase, program) for phase in (*phases, None)]
    asyncio.run(program(X))
    assert [metric.result() for metric in counted] == [0, 0, 0, 1]
    assert [metric.result() for metric in costs] == [0, 0, 0, 1]


@pytest.mark.acceptance(31)
def test_training_stops_at_the_first_batch_boundary_with_the_budget_spent(
    captured: Capture,
) -> None:
    program = asking(lm(*[2.0] * 10))
    stop = synalinks.BudgetStop(max_cost=5.0)
    assert asyncio.run(program.fit([X] * 10, [stop])) == 3  # 2, 4, 6: the first with >= 5.0
    assert stop.spent == 6.0
    assert stop.stopped
    exact = asking(lm(*[2.5] * 10))
    assert asyncio.run(exact.fit([X] * 10, [synalinks.BudgetStop(max_cost=5.0)])) == 2
    unspent = asking(lm(*[0.1] * 10))
    assert asyncio.run(unspent.fit([X] * 10, [synalinks.BudgetStop(max_cost=5.0)])) == 10
    assert not unspent.stop_training


@pytest.mark.acceptance(31)
@pytest.mark.parametrize("limits", [{}, {"max_cost": 0}, {"max_cost": -1.0}, {"max_tokens": 0}])
def test_a_budget_without_a_limit_above_0_is_refused(limits: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        synalinks.BudgetStop(**limits)
