"""A guard and the meter agree on which budget, and which entity of it, a call belongs to."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import pytest

from callmeter.schema.budgets import Budget, check_budget
from callmeter.sdk.budget.scope import Facts, entity_of
from callmeter_processors.matching import Rules

SCOPES = [
    {},
    {"project": ["shop"]},
    {"model": ["gpt*", "o1"]},
    {"environment": ["prod"], "service": ["bot", "web"]},
    {"provider": ["openai"], "user": ["a*"]},
    {"tag:team": ["x"], "session": ["s1"]},
]
PERS = ["", "project", "model", "user", "session", "tag:team"]
CALLS = [
    Facts(project, environment, "bot", provider, model, user, session, tags)
    for project, environment, provider, model, user, session, tags in itertools.product(
        ("shop", "other"), ("prod", ""), ("openai", ""), ("gpt-4o", "o1", "o1-mini"),
        ("alice", ""), ("s1", ""), ({"team": "x"}, {}),
    )
]  # fmt: skip


@pytest.mark.parametrize("scope", SCOPES, ids=str)
@pytest.mark.parametrize("per", PERS)
def test_entities_are_the_meters_own(scope, per):
    budget = Budget(id="b", scope=scope, per=per, limit_pico="1")
    check_budget(budget)
    rules = Rules([budget])
    found = set()
    for call in CALLS:
        dims = (call.project, call.environment, call.service, call.provider, call.model)
        event = SimpleNamespace(user=call.user, session=call.session, tags=call.tags)
        expected = [entity for _, entity in rules.entities(dims, event)]
        mine = entity_of(budget, call)
        assert ([] if mine is None else [mine]) == expected
        found.add(mine)
    assert found - {None}, "a scope that no call is in proves nothing"
