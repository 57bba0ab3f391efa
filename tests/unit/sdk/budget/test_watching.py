"""From metered calls and their deliveries to a shared budget: what the hooks tell."""

from __future__ import annotations

from decimal import Decimal

import pytest

import callmeter
from callmeter.clock import ManualClock
from callmeter.errors import UsageError
from callmeter.schema.budgets import Budget
from callmeter.schema.status import BudgetStatus
from callmeter.schema.windows import window_at
from callmeter.sdk import api
from callmeter.sdk.budget.calls import WATCH
from callmeter.sdk.budget.shared import SharedBudget
from callmeter.sdk.client import Client
from callmeter.settings import Settings
from callmeter.testing import Capture, CaptureTransport
from callmeter.transports.protocol import Outcome

PICO = 10**12


@pytest.fixture
def shared(captured: Capture):
    budget = SharedBudget("b", captured.clock, 60.0)
    WATCH.start()
    WATCH.follow(captured.client, budget)
    budget.snapshot(Budget(id="b", limit_pico=str(10 * PICO), action="stop"), [])
    yield budget
    WATCH.leave(captured.client)


def spend(usd: str, times: int = 1) -> None:
    for _ in range(times):
        with callmeter.generation(model="m") as call:
            call.cost(usd)


def includes(shared: SharedBudget, captured: Capture, usd: int, offset: int) -> None:
    start_us, end_us = window_at("day", captured.clock.now_us())
    status = BudgetStatus(
        v=1, log="l", budget="b", version=1, basis=1, entity="", window="day", state="ok",
        action="stop", start_us=start_us, end_us=end_us, spend_pico=str(usd * PICO), tokens=0,
        calls=0, at_us=captured.clock.now_us(), included={0: offset},
    )  # fmt: skip
    shared.report("", status)


def figures(shared: SharedBudget) -> tuple[Decimal, Decimal]:
    standing = shared.standing()
    return Decimal(standing.spent) / PICO, Decimal(standing.unseen) / PICO


def test_what_is_queued_flying_and_acknowledged_is_told_apart(captured, shared):
    transport: CaptureTransport = captured.transport
    spend("1", 2)
    assert figures(shared) == (2, 2)
    captured.client.flush(0.0)  # offset 0
    transport.holding = True
    spend("1")
    captured.client.flush(0.0)  # flies
    spend("1")  # queued
    includes(shared, captured, 2, 0)
    assert figures(shared) == (4, 2)
    transport.holding = False
    captured.client.flush(0.0)
    includes(shared, captured, 4, 2)
    assert figures(shared) == (4, 0)


def test_a_resend_changes_nothing(captured, shared):
    transport: CaptureTransport = captured.transport
    transport.outcome = Outcome.RETRY
    spend("1")
    captured.client.flush(0.0)
    assert figures(shared) == (1, 1)
    transport.outcome = Outcome.DELIVERED
    captured.clock.advance(60)
    shared.heard()
    captured.client.flush(0.0)
    includes(shared, captured, 1, 0)
    assert figures(shared) == (1, 0)


def test_calls_that_carry_no_cost_are_not_counted(captured, shared):
    @callmeter.track
    def program() -> None:
        with callmeter.generation(model="m") as outer:
            outer.cost("5")
            outer.wraps_billable()
            spend("1")

    program()
    assert figures(shared) == (1, 1)
    with callmeter.generation(model="m") as call:
        call.cost("1")
    call.finish()  # ended twice
    assert figures(shared) == (2, 2)


def test_calls_of_other_clients_are_not_counted(captured, shared):
    other = Client(
        Settings(handle_signals=False), transport=CaptureTransport(), clock=ManualClock(),
        threaded=False,
    )  # fmt: skip
    with other.generation(model="m") as call:
        call.cost("1")
    assert figures(shared) == (0, 0)
    other.close(0.0)


def test_a_shared_budget_needs_somewhere_to_hear_of_it(captured, caplog):
    callmeter.BudgetGuard(budget="b").check()
    assert "is not followed" in caplog.text
    strict = callmeter.BudgetGuard(budget="b", on_stale="stop")
    with pytest.raises(callmeter.BudgetExceeded, match="not known"):
        strict.check()
    with pytest.raises(UsageError, match="limit"):
        callmeter.BudgetGuard()


def test_a_disabled_client_stops_nothing_and_none_at_all_is_said(caplog):
    off = Client(Settings(disabled=True))
    callmeter.BudgetGuard(budget="b", on_stale="stop", client=off).check()
    assert not caplog.text
    before = api.swap(None)
    try:
        with pytest.raises(UsageError, match=r"callmeter.init\(url\)"):
            callmeter.BudgetGuard(budget="b")
    finally:
        api.swap(before)
