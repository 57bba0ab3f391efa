"""Rows 194 to 196: a circuit that opens, cools down, looks again and closes."""

import pytest

from callmeter import BudgetExceeded, BudgetLimit, CircuitState
from callmeter.clock import ManualClock


def refused(guard, *arguments) -> str:
    with pytest.raises(BudgetExceeded) as caught:
        guard.check(*arguments)
    return caught.value.limit_type


@pytest.mark.acceptance(194)
def test_an_overrun_opens_the_circuit_for_every_call(guarded):
    guard = guarded(None, BudgetLimit("1"))
    guard.record("1")
    assert guard.circuit_state is CircuitState.CLOSED
    assert refused(guard) == "session"
    assert guard.circuit_state is CircuitState.OPEN
    for estimate in (None, "0", "0.1"):
        assert refused(guard, estimate) == "circuit_breaker"


@pytest.mark.acceptance(195)
def test_it_cools_down_looks_again_and_closes(guarded, clock: ManualClock):
    guard = guarded(None, BudgetLimit("1"))
    guard.record("1")
    refused(guard)
    clock.advance(59.999999)
    assert refused(guard) == "circuit_breaker"
    clock.advance(0.000001)
    assert guard.circuit_state is CircuitState.HALF_OPEN
    assert refused(guard) == "session"
    assert guard.circuit_state is CircuitState.OPEN
    clock.advance(59.999999)
    assert guard.circuit_state is CircuitState.OPEN
    clock.advance(0.000001)
    guard.record("-0.5")  # a correction: spend is within the limit again
    assert guard.circuit_state is CircuitState.CLOSED
    guard.check()


@pytest.mark.acceptance(195)
def test_recorded_spend_above_the_limit_does_not_close_it(guarded, clock: ManualClock):
    guard = guarded(None, BudgetLimit("1"))
    guard.record("1")
    refused(guard)
    clock.advance(60)
    guard.record("0.000000000001")
    assert guard.circuit_state is CircuitState.HALF_OPEN


@pytest.mark.acceptance(196)
def test_the_values_of_the_states(guarded, clock: ManualClock):
    guard = guarded(None, [BudgetLimit("9", window="day"), BudgetLimit("1")], cooldown_s=5)
    seen = [guard.circuit_state.value]
    guard.record("1")
    refused(guard)
    seen.append(guard.circuit_state.value)
    clock.advance(5)
    seen.append(guard.circuit_state.value)
    assert seen == ["closed", "open", "half_open"]
    with pytest.raises(ValueError, match="not negative"):
        guarded(None, BudgetLimit("1"), cooldown_s=-1)
