"""A shared budget as one process knows it: the status, and exactly the local spend it lacks."""

from __future__ import annotations

import msgspec
import orjson
import pytest

from callmeter.clock import ManualClock
from callmeter.schema.budgets import Budget
from callmeter.schema.status import BudgetStatus, Previous
from callmeter.schema.windows import window_at
from callmeter.sdk.budget.http_feed import take_event
from callmeter.sdk.budget.limit import Refusal
from callmeter.sdk.budget.scope import Facts
from callmeter.sdk.budget.shared import STALE_AFTER_S, SharedBudget
from callmeter.sdk.circuit import CircuitState

HERE = Facts(project="shop", user="alice", session="s1", provider="openai", model="gpt-4o")


class Fleet:
    """Makes what a stream says."""

    def __init__(self, clock: ManualClock, **definition) -> None:
        self.clock = clock
        self.budget = Budget(
            **{"id": "b", "limit_pico": "1000", "action": "stop", "window": "day", **definition}
        )
        self.shared = SharedBudget("b", clock, 60.0)
        self.shared.snapshot(self.budget, [])

    def status(self, spend: int, entity: str = "", **more) -> BudgetStatus:
        start_us, end_us = window_at(self.budget.window, self.clock.now_us())
        fields = {
            "v": 1, "log": "l", "budget": "b", "version": 1, "basis": 1, "entity": entity,
            "window": self.budget.window, "state": "ok", "action": self.budget.action,
            "start_us": start_us, "end_us": end_us, "spend_pico": str(spend), "tokens": 0,
            "calls": 0, "at_us": self.clock.now_us(), "included": {}, **more,
        }  # fmt: skip
        return BudgetStatus(**fields)

    def says(self, spend: int, entity: str = "", **more) -> None:
        self.shared.report(entity, self.status(spend, entity, **more))

    def redefine(self, **changes) -> None:
        self.budget = msgspec.structs.replace(
            self.budget, version=self.budget.version + 1, **changes
        )
        self.shared.define(self.budget)

    def ended(self, call: str, pico: int, facts: Facts = HERE, tokens: int = 0) -> None:
        self.shared.ended(call, facts, self.clock.now_us(), pico, tokens)

    def spent(self, entity: str = "") -> int:
        return self.shared.standing(entity).spent

    def ask(self, estimate: int = 0, facts: Facts = HERE, *, stop: bool = False) -> str | None:
        """What it is refused for, None if it is not."""
        answer = self.shared.admit(facts, estimate, stale_stops=stop)
        if isinstance(answer, Refusal):
            return answer.limit_type
        if answer is not None:
            self.shared.release(answer, estimate)
        return None


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def test_local_spend_counts_until_the_status_includes_it(clock):
    fleet = Fleet(clock)
    fleet.says(100)
    fleet.ended("c1", 7)
    fleet.ended("c2", 5)
    fleet.shared.delivered(["c1", "foreign"], 3, 17)
    assert fleet.spent() == 112
    fleet.says(100, included={3: 16, 0: 99})  # a partition of its own each
    assert fleet.spent() == 112
    fleet.says(107, included={3: 17})
    assert fleet.spent() == 112
    fleet.shared.delivered(["c2"], 3, 17)  # acknowledged after the status had it
    assert fleet.spent() == 107
    assert fleet.shared.standing().unseen == 0


def test_what_is_never_delivered_counts_until_its_window_ends(clock):
    fleet = Fleet(clock, window="hour")
    fleet.ended("lost", 7)
    clock.advance(600)
    fleet.shared.heard()
    assert fleet.spent() == 7
    clock.advance(3600)
    assert fleet.spent() == 0


def test_five_seconds_after_its_delivery_it_counts_no_more_while_the_status_is_fresh(clock):
    fleet = Fleet(clock)
    fleet.ended("c1", 7)
    fleet.shared.delivered(["c1"], 0, 1)
    clock.advance(4.999)
    fleet.shared.heard()
    assert fleet.spent() == 7
    clock.advance(0.001)
    assert fleet.spent() == 0
    fleet.ended("c2", 7)
    fleet.shared.delivered(["c2"], 0, 2)
    clock.advance(STALE_AFTER_S)
    assert fleet.spent() == 7  # cut off: nobody says that it was left out


def test_the_boundary_and_what_is_under_way(clock):
    fleet = Fleet(clock)
    fleet.says(900)
    assert fleet.ask(100) is None
    assert fleet.ask(101) == "day"
    fleet = Fleet(clock)
    fleet.says(900, exposure_pico="60")
    assert fleet.ask(40) is None
    entity = fleet.shared.admit(HERE, 40, stale_stops=False)
    assert fleet.ask(40) is None  # the larger of exposure and reserved, not both
    fleet.shared.release(entity, 40)
    assert fleet.ask(41) == "day"
    fleet = Fleet(clock)
    fleet.says(1000)
    assert fleet.ask() == "day"


def test_tokens_are_limited_too(clock):
    fleet = Fleet(clock, limit_pico=msgspec.UNSET, limit_tokens=100)
    fleet.says(10**9, tokens=90)
    fleet.ended("c", 0, tokens=9)
    assert fleet.ask() is None
    fleet.ended("d", 0, tokens=1)
    assert fleet.ask() == "tokens"


def test_a_window_that_has_ended_is_spent_no_more(clock):
    fleet = Fleet(clock, window="hour")
    fleet.says(1000)
    assert fleet.ask() == "hour"
    assert fleet.ask() == "circuit_breaker"
    start_us, end_us = window_at("hour", clock.now_us())
    clock.advance((end_us - clock.now_us() - 1) / 1e6)
    fleet.shared.heard()
    assert fleet.ask() is not None
    clock.advance(0.000001)
    assert fleet.ask() is None
    assert fleet.spent() == 0
    assert fleet.shared.circuit_state is CircuitState.CLOSED
    fleet.says(0, previous=Previous(start_us=start_us, spend_pico="1", tokens=0))
    assert fleet.ask() is None


@pytest.mark.acceptance(195)
def test_the_circuit_of_a_shared_budget(clock):
    fleet = Fleet(clock)
    fleet.says(1000)
    assert [fleet.ask(), fleet.ask()] == ["day", "circuit_breaker"]
    clock.advance(60)
    fleet.shared.heard()
    assert fleet.shared.circuit_state is CircuitState.HALF_OPEN
    assert fleet.ask() == "day"
    assert fleet.shared.circuit_state is CircuitState.OPEN
    clock.advance(60)
    fleet.says(900)  # corrected
    assert fleet.ask() is None
    assert fleet.shared.circuit_state is CircuitState.HALF_OPEN
    fleet.ended("c", 50)
    assert fleet.shared.circuit_state is CircuitState.CLOSED


def test_raise_reset_disable_and_delete_let_calls_go_on(clock):
    fleet = Fleet(clock)
    fleet.says(1000)
    fleet.ask()
    fleet.redefine(limit_pico="2000", terms=2)
    assert fleet.ask() is None
    fleet.redefine(limit_pico="900")
    assert fleet.ask() == "day"
    fleet.redefine(resets=1)  # the status has not heard of it yet
    assert fleet.ask() is None
    fleet.says(1000, resets=1, forgiven_pico="100")
    assert fleet.ask() == "day"
    fleet.redefine(state="disabled")
    assert fleet.ask() is None
    fleet.redefine(state="active")
    assert fleet.ask() == "day"
    fleet.redefine(state="deleted")
    assert fleet.ask() is None


def test_another_basis_is_another_sum(clock):
    fleet = Fleet(clock)
    fleet.says(1000)
    fleet.redefine(basis=2, scope={"project": ["shop"]})
    assert fleet.ask() is None
    assert fleet.spent() == 0


@pytest.mark.acceptance(189)
def test_a_session_is_limited_by_its_value(clock):
    fleet = Fleet(clock, window="session", per="session")
    fleet.says(1000, "s1")
    clock.advance(400 * 24 * 3600)
    fleet.shared.heard()
    assert fleet.ask() == "session"
    assert fleet.ask() == "session"  # limits per value have no circuit: others are not stopped
    assert fleet.ask(facts=HERE._replace(session="s2")) is None
    assert fleet.ask(facts=HERE._replace(session="")) is None


def test_out_of_scope_is_neither_counted_nor_stopped(clock):
    fleet = Fleet(clock, scope={"model": ["gpt*"], "tag:team": ["a"]}, per="user")
    inside = HERE._replace(tags={"team": "a"})
    fleet.says(1000, "alice")
    assert fleet.ask(facts=inside) == "day"
    assert fleet.ask(facts=inside._replace(model="claude")) is None
    assert fleet.ask(facts=inside._replace(model=None)) == "day"  # not known yet
    assert fleet.ask(facts=inside._replace(tags={})) is None
    assert fleet.ask(facts=inside._replace(user="bob")) is None
    fleet.ended("c", 7, inside._replace(user="bob"))
    fleet.ended("d", 7, inside._replace(user="bob", model="claude"))
    assert fleet.spent("bob") == 7


def test_an_alerting_budget_only_warns(clock):
    fleet = Fleet(clock, action="alert")
    fleet.says(1000)
    answer = fleet.shared.admit(HERE, 0, stale_stops=False)
    assert isinstance(answer, Refusal)
    assert answer.warns_only


def test_cut_off(clock):
    fleet = Fleet(clock)
    fleet.says(999)
    clock.advance(STALE_AFTER_S - 0.001)
    assert fleet.ask(stop=True) is None
    clock.advance(0.001)
    assert not fleet.shared.fresh
    assert fleet.ask(stop=True) == "stale"
    assert fleet.ask() is None
    fleet.ended("c", 1)
    assert fleet.ask() == "day"  # what is known holds on
    fleet.says(0)
    assert fleet.ask(stop=True) == "circuit_breaker"
    unknown = SharedBudget("x", clock, 60.0)
    assert unknown.admit(HERE, 0, stale_stops=False) is None
    unknown.snapshot(None, [])
    answer = unknown.admit(HERE, 0, stale_stops=True)
    assert isinstance(answer, Refusal)
    assert answer.limit_type == "stale"


def test_events_of_the_stream(clock):
    fleet = Fleet(clock)
    shared = SharedBudget("b", clock, 60.0)
    parts = {
        "definitions": [msgspec.to_builtins(fleet.budget)],
        "statuses": [msgspec.to_builtins(fleet.status(5, included={1: 2}), str_keys=True)],
    }
    take_event(shared, "snapshot", orjson.dumps({"log": "l", **parts}))
    assert shared.standing().spent == 5
    value = msgspec.to_builtins(fleet.status(6), str_keys=True)
    take_event(shared, "status", orjson.dumps({"key": "b|", "value": value}))
    assert shared.standing().spent == 6
    take_event(shared, "status", orjson.dumps({"key": "b2|", "value": value}))
    take_event(shared, "status", orjson.dumps({"key": "b|", "value": None}))
    assert shared.standing().spent == 0
    take_event(shared, "definition", orjson.dumps({"key": "b", "value": None}))
    assert not shared.fresh
