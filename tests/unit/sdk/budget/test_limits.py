"""Rows 185 to 193 on callmeter's own guard: what a call costs, and what stops the next."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest

import callmeter
from callmeter import BudgetExceeded, BudgetLimit, BudgetWarning
from callmeter.clock import ManualClock
from callmeter.sdk.budget.guard import Limits, LocalBudget
from support.guarded_models import Model

HOUR_S = 3600


def refused(guard, *arguments, **more) -> BudgetExceeded:
    with pytest.raises(BudgetExceeded) as caught:
        guard.check(*arguments, **more)
    return caught.value


@pytest.mark.acceptance(185)
def test_a_call_under_the_limit_passes_and_counts(guarded):
    guard = guarded(Model("0.25"), BudgetLimit("1"))
    assert guard.generate("q") == "answer to q"
    assert guard.spent == Decimal("0.25")
    guard.generate("q")
    assert guard.spent == Decimal("0.5")


@pytest.mark.acceptance(186)
def test_a_spent_limit_stops_the_call_before_the_model(guarded):
    model = Model("0.5")
    guard = guarded(model, BudgetLimit("1.00"))
    guard.generate("q")
    guard.generate("q")
    with pytest.raises(BudgetExceeded) as caught:
        guard.generate("q")
    assert model.asked == 2
    assert caught.value.spent == caught.value.limit == 1
    assert caught.value.limit_type == "session"
    assert "1 of 1 USD" in str(caught.value)


@pytest.mark.acceptance(187)
@pytest.mark.parametrize(
    ("spent", "estimate", "allowed"),
    [
        ("0.999999999999", None, True),
        ("1", None, False),
        ("0.9", "0.1", True),
        ("0.9", "0.100000000001", False),
        ("0", "1", True),
        ("0", "1.000000000001", False),
        ("1", "0", False),
    ],
)
def test_the_boundary_is_exact_to_the_pico(guarded, spent, estimate, allowed):
    guard = guarded(None, BudgetLimit("1"))
    guard.record(spent)
    if allowed:
        guard.check(estimate)
    else:
        assert refused(guard, estimate).limit_type == "session"


def test_estimates_of_calls_under_way_are_reserved(guarded):
    guard = guarded(None, BudgetLimit("1"), cooldown_s=0)
    with guard.admit("0.6"):
        assert refused(guard, "0.5").limit_type == "session"
        guard.check("0.4")
    guard.check("1")


@pytest.mark.acceptance(188)
def test_warn_lets_the_call_go_on_and_counts_it(guarded):
    model = Model("1")
    guard = guarded(model, BudgetLimit("1"), on_exceeded="warn")
    guard.generate("q")
    with pytest.warns(BudgetWarning, match="used up"):
        assert guard.generate("q") == "answer to q"
    assert (model.asked, guard.spent) == (2, 2)
    for other in ("ignore", "", None):
        with pytest.raises(ValueError, match="on_exceeded"):
            guarded(model, BudgetLimit("1"), on_exceeded=other)
    with pytest.raises(ValueError, match="on_stale"):
        guarded(model, BudgetLimit("1"), on_stale="raise")


@pytest.mark.acceptance(189)
def test_a_local_session_ends_with_its_guard_or_reset(guarded, clock: ManualClock):
    guard = guarded(None, BudgetLimit("1"))
    guard.record("1")
    clock.advance(366 * 24 * HOUR_S)
    assert refused(guard).limit_type == "session"
    guarded(None, BudgetLimit("1")).check()
    guard.reset()
    assert guard.spent == 0
    guard.check()


@pytest.mark.acceptance(190)
@pytest.mark.parametrize(
    ("window", "begins", "left_s"),
    [
        ("hour", "2026-03-01T10:59:00", 60),
        ("day", "2026-03-01T23:58:00", 120),
        ("month", "2028-02-29T23:59:59", 1),
        ("month", "2026-12-31T23:59:50", 10),
    ],
)
def test_a_window_clears_exactly_at_its_boundary(guarded, window, begins, left_s):
    at = datetime.fromisoformat(begins).replace(tzinfo=UTC)
    clock = ManualClock(int(at.timestamp()) * 1_000_000)
    budget = LocalBudget(Limits(10, window), clock=clock)
    budget.record(10)
    clock.advance(left_s - 0.000001)
    with pytest.raises(BudgetExceeded):
        budget.check()
    clock.advance(0.000001)
    assert budget.spent_pico == 0
    budget.check()


@pytest.mark.acceptance(190)
def test_a_late_event_counts_in_its_own_window(guarded):
    clock = ManualClock(1_700_000_000_000_000)
    budget = LocalBudget(Limits(10, "hour"), clock=clock)
    began_us = clock.now_us()
    clock.advance(HOUR_S)
    budget.record(7, at_us=began_us)
    budget.record(2)
    assert (budget.spent_at(began_us), budget.spent_pico) == (7, 2)


@pytest.mark.acceptance(190)
def test_a_call_counts_in_the_window_of_its_start(guarded, clock: ManualClock):
    guard = guarded(None, BudgetLimit("1", window="hour"))
    with guard, callmeter.generation(model="m") as call:
        call.cost("0.75")
        clock.advance(HOUR_S)
    assert guard.spent == 0


@pytest.mark.acceptance(191)
@pytest.mark.parametrize("window", ["year", "", "Day"])
def test_an_unknown_window_is_refused(window):
    with pytest.raises(ValueError, match="unknown window"):
        BudgetLimit("1", window=window)


@pytest.mark.parametrize("amount", ["-1", "abc", -0.5, float("nan")])
def test_what_is_no_limit_is_refused(amount):
    with pytest.raises(ValueError):
        BudgetLimit(amount)
    with pytest.raises(ValueError, match="needs"):
        BudgetLimit()


@pytest.mark.acceptance(192)
def test_tokens_are_limited_when_they_cost_nothing(guarded):
    model = Model("0", tokens=500)
    guard = guarded(model, BudgetLimit(max_tokens=1000))
    guard.generate("q")
    guard.check()
    guard.generate("q")
    with pytest.raises(BudgetExceeded) as caught:
        guard.generate("q")
    assert (caught.value.spent, caught.value.limit) == (1000, 1000)
    assert (caught.value.limit_type, model.asked) == ("tokens", 2)


@pytest.mark.acceptance(193)
def test_a_request_and_a_user_have_limits_of_their_own(guarded):
    guard = guarded(Model("0.5"), BudgetLimit("10", per_request="0.6", per_user="1"))
    assert refused(guard, "0.61").limit_type == "per_request"
    assert guard.circuit_state.value == "closed"
    alice, bob = guard.acting_for("alice"), guard.acting_for("bob")
    for _ in range(2):
        alice.generate("q")
    with pytest.raises(BudgetExceeded) as caught:
        alice.generate("q")
    assert (caught.value.limit_type, caught.value.spent) == ("per_user", 1)
    assert guard.circuit_state.value == "closed"
    bob.generate("q")
    assert (guard.spent_by("alice"), guard.spent_by("bob")) == (1, Decimal("0.5"))
