"""Programs over the stand-in engine, run under a manual clock with their records captured."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from callmeter.compat import synalinks
from callmeter.compat.synalinks.metrics import ProgramOperationalMetric
from callmeter.testing import Capture, capture
from support.synalinks_standins import DataModel, LanguageModel, Program, Reply, synalinks_engine

__all__ = [
    "X",
    "asking",
    "bound",
    "captured",
    "infer",
    "lasting",
    "lm",
    "of_phase",
    "synalinks_engine",
]

X = DataModel(q=1)


@pytest.fixture
def captured(synalinks_engine: Any) -> Iterator[Capture]:
    with capture() as kept:
        synalinks.instrument()
        yield kept


def bound(kind: type[ProgramOperationalMetric], program: Program) -> Any:
    metric = kind()
    metric.bind_program(program)
    return metric


def of_phase(kind: type[ProgramOperationalMetric], phase: str | None, program: Program) -> Any:
    return bound(type(kind.__name__, (kind,), {"_phase": phase}), program)


def lm(*costs: float | None, **more: Any) -> LanguageModel:
    return LanguageModel(script=[Reply(10, 5, cost=cost) for cost in costs], **more)


def asking(*models: Any) -> Program:
    """A program that asks each of its models once."""

    async def work(x: Any) -> Any:
        return [await model(x) for model in models]

    return Program(work, modules=list(models), name="qa")


def infer(*calls: Awaitable[Any], phase: str = "inference") -> list[Any]:
    """Run calls one after the other in a phase."""

    async def run() -> list[Any]:
        with synalinks.op_scope(phase):
            return [await call for call in calls]

    return asyncio.run(run())


def lasting(kept: Capture, seconds: float) -> Callable[..., Awaitable[None]]:
    async def work(*args: Any) -> None:
        kept.clock.advance(seconds)

    return work
