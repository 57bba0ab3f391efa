"""Row 197, and a guard around models, functions and blocks of every kind."""

import asyncio
import contextlib
import inspect
from decimal import Decimal
from typing import Any

import pytest

import callmeter
from callmeter import BudgetExceeded, BudgetGuard, BudgetLimit
from callmeter.compat.synapsekit import CostTracker
from callmeter.testing import Capture
from support.guarded_models import AsyncModel, Model


class Bare:
    """A model that nobody meters; its reply says what it used."""

    model = "gpt-4o-mini"
    provider = "openai"

    def __init__(self) -> None:
        self.asked = 0

    def generate(self, prompt: str, **more: Any) -> dict[str, Any]:
        self.asked += 1
        return {"usage": {"prompt_tokens": 1000, "completion_tokens": 500}}


class Kit:
    """A model as SynapseKit has them: text, and a running count of tokens."""

    def __init__(self) -> None:
        self.config = type("Config", (), {"model": "gpt-4o-mini", "provider": "openai"})()
        self.tokens_used = {"input": 0, "output": 0}
        self.asked = 0

    async def generate(self, prompt: str, **more: Any) -> str:
        self.asked += 1
        self.tokens_used = {k: n + 100 for k, n in self.tokens_used.items()}
        return "text"


#: 1,000 tokens in and 500 out of gpt-4o-mini.
BARE_USD = Decimal("0.00045")


@pytest.mark.acceptance(197)
def test_a_guard_around_a_tracker_counts_once(captured: Capture, guarded):
    kit = Kit()
    tracker = CostTracker(kit)
    guard = guarded(tracker, BudgetLimit("1"))
    assert asyncio.run(guard.generate("q")) == "text"
    assert kit.asked == len(tracker.records) == len(captured.calls) == 1
    assert guard.spent == Decimal("0.000075")
    assert float(guard.spent) == tracker.cost_so_far


@pytest.mark.acceptance(197)
def test_a_bare_model_is_metered_once(captured: Capture, guarded):
    guard = guarded(Bare(), BudgetLimit("1"))
    guard.generate("q")
    (call,) = captured.calls
    assert call["usage"] == {"input": 1000, "output": 500}
    assert (call["model"], call["provider"]) == ("gpt-4o-mini", "openai")
    assert guard.spent == BARE_USD


def test_a_users_own_generation_around_a_guarded_bare_model_is_billed_once(
    captured: Capture, guarded
):
    guard = guarded(Bare(), BudgetLimit("1"))
    with callmeter.generation("mine", model="gpt-4o-mini", provider="openai") as mine:
        guard.generate("q")
        mine.usage(input=1000, output=500)
    asked, wrapper = captured.calls
    assert asked["usage"] == {"input": 1000, "output": 500}
    assert asked["parent_span_id"] == wrapper["call_id"].replace("-", "")[16:]
    assert (wrapper["operation"], "usage" in wrapper) == ("invoke_model", False)
    assert guard.spent == BARE_USD


def test_a_generation_around_it_on_another_model_is_a_call_of_its_own(captured: Capture, guarded):
    guard = guarded(Bare(), BudgetLimit("1"))
    with callmeter.generation("mine", model="gpt-4o", provider="openai") as mine:
        guard.generate("q")
        mine.usage(input=10, output=5)
    asked, around = captured.calls
    assert (asked["operation"], around["operation"]) == ("chat", "chat")
    assert around["usage"] == {"input": 10, "output": 5}


def test_guards_within_each_other_each_count_once(guarded):
    model = Model("0.25")
    inner = guarded(model, BudgetLimit("1"))
    outer = guarded(inner, BudgetLimit("2"))
    with outer:
        outer.generate("q")
    assert (model.asked, inner.spent, outer.spent) == (1, Decimal("0.25"), Decimal("0.25"))


def test_without_a_client_a_models_own_word_counts():
    guard = BudgetGuard(Bare(), BudgetLimit(BARE_USD))
    guard.generate("q")
    assert guard.spent == BARE_USD
    with pytest.raises(BudgetExceeded):
        guard.generate("q")
    assert guard.llm.asked == 1


def test_models_are_guarded_in_every_form(guarded):
    async def both(guard: BudgetGuard) -> list[str]:
        answer = await guard.generate("q")
        return [answer, "".join([chunk async for chunk in guard.stream("q")])]

    model, amodel = Model("0.25"), AsyncModel("0.25")
    guard, aguard = guarded(model, BudgetLimit("0.5")), guarded(amodel, BudgetLimit("0.5"))
    assert [guard.generate("q"), "".join(guard.stream("q"))] == ["answer to q"] * 2
    assert asyncio.run(both(aguard)) == ["answer to q"] * 2
    for refusing in (lambda: list(guard.stream("q")), lambda: asyncio.run(both(aguard))):
        with pytest.raises(BudgetExceeded):
            refusing()
    assert (model.asked, amodel.asked) == (2, 2)
    assert guard.usd == "0.25"  # every other name is the model's own


def test_an_abandoned_stream_frees_what_it_reserved(guarded):
    guard = guarded(Model("0.25"), BudgetLimit("1"), estimate="0.75", cooldown_s=0)
    stream = guard.stream("q")
    assert next(stream) == "answer "
    with pytest.raises(BudgetExceeded):
        next(guard.stream("q"))
    stream.close()
    guard.check("1")


@pytest.mark.parametrize("tracked", [False, True])
def test_functions_of_every_kind_keep_it(guarded, tracked):
    def spend() -> None:
        with callmeter.generation(model="m") as call:
            call.cost("0.25")

    def plain() -> int:
        spend()
        return 1

    async def coroutine() -> int:
        return plain()

    def generator():
        yield plain()

    async def async_generator():
        yield plain()

    guard = guarded(None, BudgetLimit("1"))
    kinds = [plain, coroutine, generator, async_generator]
    made = [guard(callmeter.track(fn) if tracked else fn) for fn in kinds]
    assert inspect.iscoroutinefunction(made[1])
    assert [fn.__name__ for fn in made] == [fn.__name__ for fn in kinds]

    async def all_of(stream: Any) -> list[int]:
        return [item async for item in stream]

    assert made[0]() == 1
    assert asyncio.run(made[1]()) == 1
    assert list(made[2]()) == [1]
    assert asyncio.run(all_of(made[3]())) == [1]
    assert guard.spent == 1
    for again in (
        made[0],
        lambda: asyncio.run(made[1]()),
        lambda: list(made[2]()),
        lambda: asyncio.run(all_of(made[3]())),
    ):
        with pytest.raises(BudgetExceeded):
            again()


def test_blocks_of_concurrent_tasks_are_kept_apart(guarded):
    first, second = guarded(None, BudgetLimit("9")), guarded(None, BudgetLimit("9"))

    async def spend(guard: BudgetGuard, times: int) -> None:
        for _ in range(times):
            async with guard:
                await asyncio.sleep(0)
                async with callmeter.generation(model="m") as call:
                    await asyncio.sleep(0)
                    call.cost("0.25")

    async def main() -> None:
        await asyncio.gather(spend(first, 3), spend(second, 5), spend(first, 4))

    asyncio.run(main())
    assert (first.spent, second.spent) == (Decimal("1.75"), Decimal("1.25"))


def test_a_failed_call_counts_what_it_says(guarded):
    guard = guarded(None, BudgetLimit("1"))
    with contextlib.suppress(OSError), guard, callmeter.generation(model="m") as call:
        call.cost("0.25")
        raise OSError
    with guard.admit("0.1", user="alice"):
        pass
    assert guard.spent == Decimal("0.25")


def test_an_estimate_is_given_or_priced_or_nothing(guarded):
    limit = BudgetLimit("1", per_request="0.0001")
    # 4 tokens in and 160 out of gpt-4o-mini are 0.0000966 USD, 170 are above the limit.
    guard = guarded(Bare(), limit)
    guard.generate("sixteen letters.", max_tokens=160)
    with pytest.raises(BudgetExceeded) as caught:
        guard.generate("sixteen letters.", max_tokens=170)
    assert caught.value.limit_type == "per_request"
    assert caught.value.spent == Decimal("0.0001026")
    guard.generate("sixteen letters.")
    priced = guarded(Bare(), limit, estimate=lambda prompt, **more: Decimal(len(prompt)))
    with pytest.raises(BudgetExceeded) as caught:
        priced.generate("ab")
    assert caught.value.spent == 2
