"""Program metrics on stored data: the same run, metered in process and read back from the store."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from types import ModuleType
from typing import Any

import pytest

import callmeter
from callmeter.compat import synalinks
from callmeter.compat.synalinks import metrics
from callmeter_sinks.program_metrics import ProgramFigures, phase_seconds, program_metrics
from support.embedded import Pipeline
from support.synalinks_standins import (
    DataModel,
    EmbeddingModel,
    LanguageModel,
    Program,
    Reply,
    synalinks_engine,
)

__all__ = ["synalinks_engine"]  # a fixture

X = DataModel(q=1)


class Stored:
    """Meters into the pipeline; ``read`` gives a program's figures once all is stored."""

    def __init__(self, pipeline: Pipeline, project: str) -> None:
        self.pipeline = pipeline
        self.project = project

    def settle(self) -> None:
        assert callmeter.flush(20.0).ok
        stats = callmeter.stats()
        self.pipeline.settle(stats.source, stats.envelopes)
        sql = (
            "SELECT (SELECT sum(call_ends) FROM envelopes WHERE project = {p:String}) = "
            "(SELECT count() FROM calls WHERE project = {p:String}) AND "
            "(SELECT sum(metrics) FROM envelopes WHERE project = {p:String}) = "
            "(SELECT count() FROM metrics WHERE project = {p:String})"
        )
        self.pipeline.wait(
            lambda: bool(self.pipeline.store.query(sql, {"p": self.project}).rows[0][0])
        )

    def read(self, program: str, **more: Any) -> ProgramFigures:
        return program_metrics(self.pipeline.store, program, project=self.project, **more)


@pytest.fixture
def stored(embedded: Pipeline, project: str, synalinks_engine: ModuleType) -> Iterator[Stored]:
    callmeter.init(embedded.url, project=project)
    synalinks.instrument()
    yield Stored(embedded, project)
    callmeter.close()


async def infer(*calls: Any, phase: str = "inference") -> None:
    with synalinks.op_scope(phase):
        for call in calls:
            await call


def test_the_store_says_what_the_process_said(stored: Stored) -> None:
    down = ValueError("down")
    model = LanguageModel(
        script=[
            Reply(100, 20, cost=0.01, cached=60),
            Reply(200, 50, cost=0.014, reasoning=30),
            down, down, down,
        ],
        name="lm",
    )  # fmt: skip
    embedder = EmbeddingModel(
        script=[Reply(15, cost=0.0001, vectors=3), Reply(25, vectors=5), Reply(1, vectors=1)]
    )

    async def work(x: Any) -> Any:
        await asyncio.sleep(0.02)
        return [await model(x), await embedder(x)]

    program = Program(work, modules=[model, embedder], name="qa")
    wanted = [metrics.ProgramCalls(), metrics.ProgramElapsedTime(), metrics.ProgramCost()]
    for metric in wanted:
        metric.bind_program(program)
    asyncio.run(infer(program(X), program(X), program(X)))
    calls, elapsed, cost = (metric.result() for metric in wanted)
    stored.settle()
    figures = stored.read("qa", phase="inference")
    assert (figures.calls, calls) == (3, 3)
    assert figures.elapsed_s == pytest.approx(elapsed, abs=3e-6)  # each cut to microseconds
    assert elapsed > 0
    assert cost == 0.0241
    # Two calls came without a cost: the meter priced their 26 tokens at 0.15 USD a million.
    assert figures.cost_usd == Decimal("0.0241") + 26 * Decimal("0.00000015")
    assert figures.cost_unknown == 1  # the failed call's
    assert figures.avg_cost_per_invocation_usd == figures.cost_usd / 3
    assert figures.calls_per_second == pytest.approx(3 / elapsed, rel=1e-3)
    assert (figures.model_calls, figures.model_failures) == (5, 1)
    assert figures.error_rate == 1 / 6
    assert (figures.input_tokens, figures.output_tokens) == (300 + 41, 70)
    assert (figures.cached_tokens, figures.reasoning_tokens) == (60, 30)
    assert figures.reasoning_share == 30 / 70
    assert figures.vectors == 9
    wall_s = phase_seconds(stored.pipeline.store, "inference", project=stored.project)
    assert wall_s >= figures.elapsed_s


def test_phases_and_entry_modules_are_apart(stored: Stored) -> None:
    model = LanguageModel(script=[Reply(1, 1, cost=usd) for usd in (1.0, 2.0, 3.0, 4.0)])
    b = Program(model, [model], name="B")
    a = Program(b, [b], name="A")
    asyncio.run(infer(a(X)))
    asyncio.run(infer(a(X), phase="reward"))
    asyncio.run(infer(a(X), phase="optimizer"))
    asyncio.run(a(X))  # outside any phase
    stored.settle()
    costs = [stored.read("A", phase=p).cost_usd for p in ("inference", "reward", "optimizer")]
    assert costs == [1, 2, 3]
    assert [stored.read("A", phase=p).calls for p in ("inference", "reward", "optimizer")] == [
        1
    ] * 3
    assert (stored.read("A").calls, stored.read("A").cost_usd) == (4, 10)
    assert stored.read("B") == ProgramFigures()


def test_a_baseline_and_a_start_tell_a_run_from_what_was_before(stored: Stored) -> None:
    model = LanguageModel(
        script=[*(Reply(1, 1, cost=0.1) for _ in range(10)), Reply(1, 1, cost=0.001)]
    )
    program = Program(model, [model], name="qa")
    asyncio.run(infer(*(program(X) for _ in range(10))))
    stored.settle()
    before, started = stored.read("qa", phase="inference"), datetime.now(UTC)
    assert (before.calls, before.cost_usd) == (10, 1)
    run = stored.read("qa", phase="inference") - before
    assert (run.calls, run.elapsed_us, run.cost_usd) == (0, 0, 0)
    asyncio.run(infer(program(X)))
    stored.settle()
    run = stored.read("qa", phase="inference") - before
    assert (run.calls, run.cost_usd) == (1, Decimal("0.001"))
    assert stored.read("qa", phase="inference", since=started) == run


def test_a_correction_of_the_bill_is_part_of_the_cost(stored: Stored) -> None:
    model = LanguageModel(script=[Reply(1, 1, cost=0.5)])
    asyncio.run(infer(Program(model, [model], name="qa")(X)))
    client = callmeter.sdk.api.default_client()
    client.emit_event(
        {"kind": "cost", "started_us": None, "cost_pico": "-100000000000", "source": "bill",
         "program": "qa", "phase": "inference"}
    )  # fmt: skip
    stored.settle()
    stored.pipeline.wait(lambda: stored.read("qa").cost_usd != Decimal("0.5"))
    figures = stored.read("qa")
    assert figures.cost_usd == Decimal("0.4")
    assert (figures.calls, figures.model_calls) == (1, 1)  # a correction is no call
    assert stored.read("qa", phase="inference") == figures


@pytest.mark.parametrize("name", ["no such program", "'; DROP TABLE calls --"])
def test_an_unknown_program_has_nothing(stored: Stored, name: str) -> None:
    assert stored.read(name) == ProgramFigures()
    assert stored.read(name).calls_per_second == 0.0
    assert stored.read(name).avg_cost_per_invocation_usd == 0
