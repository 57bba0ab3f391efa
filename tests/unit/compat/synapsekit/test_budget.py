"""BudgetGuard: limits, windows, circuit."""

import asyncio
import warnings
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from callmeter.clock import ManualClock
from callmeter.compat.synapsekit import (
    BudgetExceeded,
    BudgetGuard,
    BudgetLimit,
    BudgetWarning,
    CircuitState,
    CostTracker,
    Span,
    TracingMiddleware,
)
from callmeter.money import to_pico
from callmeter.sdk.budget.guard import BudgetGuard as SharedGuard
from callmeter.sdk.budget.guard import Limits, LocalBudget
from callmeter.testing import Capture
from support.synapsekit_standins import LLMConfig, StubLLM

#: 1,000 tokens in and 500 out of gpt-4o-mini.
COST = 0.00045


def run(awaitable):
    return asyncio.run(awaitable)


def at(text: str) -> ManualClock:
    return ManualClock(int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1e6))


def guard_of(limit: BudgetLimit, clock: ManualClock | None = None, **options) -> BudgetGuard:
    return BudgetGuard(StubLLM(("x", 1000, 500)), limit, clock=clock or ManualClock(), **options)


def refused(guard: BudgetGuard, *arguments) -> str:
    with pytest.raises(BudgetExceeded) as caught:
        guard.check_before(*arguments)
    return caught.value.limit_type


@pytest.mark.acceptance(185)
def test_under_the_limit_a_call_passes_and_is_spent() -> None:
    guard = BudgetGuard(StubLLM(("x", 1000, 500)), BudgetLimit(max_cost_usd=1.00))
    assert guard.spent == 0.0
    assert run(guard.generate("q")) == "x "
    assert guard.spent == COST
    assert run(guard.generate("q")) == "x "
    assert guard.spent == 2 * COST


@pytest.mark.acceptance(186)
def test_a_used_up_budget_raises_before_the_model_is_asked(callmeter_capture: Capture) -> None:
    llm = StubLLM(("x", 1000, 500))
    guard = BudgetGuard(llm, BudgetLimit(max_cost_usd=1.00))
    guard.record_spend(1.00)
    with pytest.raises(BudgetExceeded) as caught:
        run(guard.generate("q"))
    assert (caught.value.spent, caught.value.limit) == (1, 1)
    assert f"{caught.value.spent:.4f} / {caught.value.limit:.4f}" == "1.0000 / 1.0000"
    assert llm.asked == []

    async def stream():
        return [chunk async for chunk in guard.stream("q")]

    with pytest.raises(BudgetExceeded):
        run(stream())
    assert llm.asked == []
    assert callmeter_capture.calls == []


@pytest.mark.acceptance(187)
@pytest.mark.parametrize(
    ("spent", "estimate", "allowed"),
    [
        ("0.999999999999", None, True),
        ("1", None, False),
        ("1.000000000001", None, False),
        ("0.9", "0.1", True),
        ("0.9", "0.100000000001", False),
        ("0", "1", True),
        ("0", "1.000000000001", False),
        ("1", "0", False),
    ],
)
def test_the_boundary_is_exact(spent, estimate, allowed) -> None:
    guard = guard_of(BudgetLimit(max_cost_usd="1"))
    guard.record_spend(spent)
    if allowed:
        guard.check_before(estimate)
    else:
        assert refused(guard, estimate) == "session"


@pytest.mark.acceptance(188)
def test_warn_lets_the_call_proceed_and_counts_it() -> None:
    llm = StubLLM(("x", 1000, 500))
    guard = BudgetGuard(llm, BudgetLimit(max_cost_usd=COST), on_exceeded="warn")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(guard.generate("q"))
    for _ in range(2):
        with pytest.warns(BudgetWarning):
            assert run(guard.generate("q")) == "x "
    assert len(llm.asked) == 3
    assert guard.spent == pytest.approx(3 * COST, abs=1e-15)
    for other in ("ignore", "", "RAISE"):
        with pytest.raises(ValueError, match="on_exceeded is one of raise, warn"):
            BudgetGuard(llm, BudgetLimit(max_cost_usd=1.00), on_exceeded=other)


@pytest.mark.acceptance(189)
def test_a_local_session_is_not_reset_by_time() -> None:
    clock = ManualClock()
    guard = guard_of(BudgetLimit(max_cost_usd=1.00), clock)
    guard.record_spend(1.00)
    clock.advance(400 * 24 * 3600)
    assert guard.spent == 1.00
    assert refused(guard) == "session"
    guard.reset()
    assert guard.spent == 0.0
    guard.check_before()
    guard.record_spend(1.00)
    assert guard_of(BudgetLimit(max_cost_usd=1.00), clock).spent == 0.0


@pytest.mark.acceptance(190)
@pytest.mark.parametrize(
    ("window", "begins", "seconds_left"),
    [
        ("hour", "2026-03-01T10:59:00", 60),
        ("day", "2026-03-01T23:58:00", 120),
        ("month", "2026-02-28T23:00:00", 3600),
        ("month", "2028-02-29T23:59:59", 1),
        ("month", "2026-12-31T23:59:50", 10),
    ],
)
def test_spend_clears_exactly_at_the_boundary(window, begins, seconds_left) -> None:
    clock = at(begins)
    guard = guard_of(BudgetLimit(max_cost_usd=1.00, window=window), clock)
    guard.record_spend(1.00)
    assert refused(guard) == window
    clock.advance(seconds_left - 0.000001)
    assert guard.spent == 1.00
    with pytest.raises(BudgetExceeded):
        guard.check_before()
    clock.advance(0.000001)
    assert guard.spent == 0.0
    guard.check_before()


@pytest.mark.acceptance(190)
def test_a_late_event_counts_in_its_own_window() -> None:
    clock = at("2026-03-01T10:59:59")
    budget = LocalBudget(Limits(to_pico("1"), "hour"), clock=clock)
    began_us = clock.now_us()
    clock.advance(1)
    budget.record(to_pico("0.25"), at_us=began_us)
    budget.record(to_pico("0.5"))
    assert budget.spent_pico == to_pico("0.5")
    assert budget.spent_at(began_us) == to_pico("0.25")


@pytest.mark.acceptance(191)
@pytest.mark.parametrize("window", ["year", "", "Day"])
def test_an_unknown_window_is_refused(window) -> None:
    with pytest.raises(ValueError, match="unknown window"):
        BudgetLimit(max_cost_usd=1.00, window=window)


@pytest.mark.acceptance(192)
def test_tokens_are_limited_even_when_they_cost_nothing() -> None:
    llm = StubLLM(("x", 600, 399), ("x", 1, 0), config=LLMConfig(model="costs-nothing"))
    guard = BudgetGuard(llm, BudgetLimit(max_cost_usd=1.00, max_tokens=1000))
    run(guard.generate("q"))  # 999 tokens
    run(guard.generate("q"))  # 1000
    assert guard.spent == 0.0
    with pytest.raises(BudgetExceeded) as caught:
        run(guard.generate("q"))
    assert caught.value.limit_type == "tokens"
    assert len(llm.asked) == 2


@pytest.mark.acceptance(193)
def test_limits_of_a_request_and_of_a_user() -> None:
    limit = BudgetLimit(max_cost_usd=100.0, per_request=0.10, per_user=0.50)
    guard = guard_of(limit, estimate=lambda prompt, kwargs: len(prompt) * 0.01)
    with pytest.raises(BudgetExceeded) as caught:
        run(guard.generate("x" * 11))
    assert caught.value.limit_type == "per_request"
    assert guard.circuit_state is CircuitState.CLOSED
    run(guard.generate("x" * 10, user="alice"))
    assert guard.user_spent("alice") == COST
    guard.record_spend(0.50, "alice")
    with pytest.raises(BudgetExceeded) as caught:
        run(guard.generate("x", user="alice"))
    assert caught.value.limit_type == "per_user"
    assert guard.circuit_state is CircuitState.CLOSED
    assert run(guard.generate("x", user="bob")) == "x "
    assert guard.user_spent("bob") == COST


@pytest.mark.acceptance(194)
def test_an_overrun_opens_the_circuit_for_every_call() -> None:
    guard = guard_of(BudgetLimit(max_cost_usd=1.00))
    guard.record_spend(0.90)
    assert guard.circuit_state is CircuitState.CLOSED
    assert refused(guard, 0.20) == "session"
    assert guard.circuit_state is CircuitState.OPEN
    for estimate in (0, None, 0.05):
        assert refused(guard, estimate) == "circuit_breaker"
    with pytest.raises(BudgetExceeded) as caught:
        run(guard.generate("q"))
    assert caught.value.limit_type == "circuit_breaker"


@pytest.mark.acceptance(195)
def test_a_circuit_cools_down_tries_again_and_closes() -> None:
    clock = ManualClock()
    guard = guard_of(BudgetLimit(max_cost_usd=1.00), clock)
    guard.record_spend(0.90)
    assert refused(guard, 0.20) == "session"
    clock.advance(59.999)
    assert guard.circuit_state is CircuitState.OPEN
    clock.advance(0.001)
    assert guard.circuit_state is CircuitState.HALF_OPEN
    assert refused(guard, 0.20) == "session"  # a failing check
    assert guard.circuit_state is CircuitState.OPEN
    clock.advance(59.999)
    assert guard.circuit_state is CircuitState.OPEN  # the full cool-down again
    clock.advance(0.001)
    guard.check_before(0.05)
    assert guard.circuit_state is CircuitState.HALF_OPEN
    guard.record_spend(0.05)
    assert guard.circuit_state is CircuitState.CLOSED
    guard.check_before(0.05)


@pytest.mark.acceptance(195)
def test_spend_beyond_the_limit_does_not_close_a_half_open_circuit() -> None:
    clock = ManualClock()
    guard = guard_of(BudgetLimit(max_cost_usd=1.00), clock)
    guard.record_spend(0.90)
    assert refused(guard, 0.20) == "session"
    clock.advance(60)
    guard.record_spend(0.20)
    assert guard.circuit_state is CircuitState.HALF_OPEN


@pytest.mark.acceptance(196)
def test_the_states_of_a_circuit() -> None:
    assert [state.value for state in CircuitState] == ["closed", "open", "half_open"]
    clock = ManualClock()
    guard = guard_of(BudgetLimit(max_cost_usd=1.00), clock)
    assert guard.circuit_state.value == "closed"
    guard.record_spend(1)
    refused(guard)
    assert guard.circuit_state.value == "open"
    clock.advance(60)
    assert guard.circuit_state.value == "half_open"


@pytest.mark.acceptance(197)
def test_wrappers_compose(callmeter_capture: Capture) -> None:
    llm = StubLLM(("x", 1000, 500))
    tracker = CostTracker(llm)
    guard = BudgetGuard(llm=tracker, limit=BudgetLimit(max_cost_usd=1.00))
    run(guard.generate("q"))
    assert len(llm.asked) == 1
    assert len(tracker.records) == 1
    assert guard.spent == tracker.cost_so_far == COST
    assert len(callmeter_capture.calls) == 1


def test_a_failed_call_costs_nothing() -> None:
    guard = BudgetGuard(StubLLM(OSError("away")), BudgetLimit(max_cost_usd=1.00))
    with pytest.raises(OSError, match="away"):
        run(guard.generate("q"))
    assert guard.spent == 0.0


def test_negative_limits_are_refused() -> None:
    with pytest.raises(ValueError, match="not negative"):
        BudgetLimit(max_cost_usd=-1)
    with pytest.raises(ValueError, match="not negative"):
        guard_of(BudgetLimit(max_cost_usd=1), cooldown_s=-1)


def test_no_way_of_asking_a_model_passes_by_its_budget(callmeter_capture: Capture) -> None:
    llm = StubLLM(("x y", 1000, 500))
    tracker = CostTracker(llm)
    guard = BudgetGuard(tracker, BudgetLimit(max_cost_usd=3 * COST))
    messages = [{"role": "user", "content": "q"}]

    async def streamed():
        return [chunk async for chunk in guard.stream_with_messages(messages)]

    assert run(guard.generate_with_messages(messages, temperature=1)) == "x y "
    assert run(streamed()) == ["x ", "y "]
    assert run(guard.call_with_tools(messages, ["a tool"]))["tool_calls"] == ["a tool"]
    assert len(tracker.records) == len(callmeter_capture.calls) == len(llm.asked) == 3
    for ask in (
        guard.generate_with_messages(messages),
        streamed(),
        guard.call_with_tools(messages, []),
    ):
        with pytest.raises(BudgetExceeded):
            run(ask)
    assert len(llm.asked) == 3
    with pytest.raises(AttributeError):
        _ = BudgetGuard(object(), BudgetLimit(max_cost_usd=1)).call_with_tools


@pytest.mark.parametrize("inner", [lambda llm: llm, CostTracker], ids=["bare", "tracked"])
def test_around_a_guard_of_callmeters_own_a_call_is_billed_and_counted_once(
    callmeter_capture: Capture, spans: list[Span], inner
) -> None:
    llm = StubLLM(("x", 1000, 500))
    guard = SharedGuard(inner(llm), BudgetLimit(max_cost_usd=1.00))
    assert run(TracingMiddleware(guard).generate("q")) == "x "
    assert len(llm.asked) == 1
    assert guard.spent == Decimal("0.00045")
    assert [span.name for span in spans].count("llm.generate") == 1
    billed = [call["usage"] for call in callmeter_capture.calls if "usage" in call]
    assert billed == [{"input": 1000, "output": 500}]
