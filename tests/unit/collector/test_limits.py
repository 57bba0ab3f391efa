"""Rates by key, and the bytes of all bodies in hand."""

from __future__ import annotations

import pytest

from callmeter.clock import ManualClock
from callmeter.collector.config import CollectorConfig
from callmeter.collector.limits import MemoryGate, RateLimit
from callmeter.errors import ConfigError


def test_no_rate_no_limit() -> None:
    limit = RateLimit(ManualClock(), None, None)
    assert [limit.wait_s("k", 1000) for _ in range(100)] == [0.0] * 100


def test_a_burst_then_the_rate() -> None:
    clock = ManualClock()
    limit = RateLimit(clock, 10.0, 20.0)
    assert [limit.wait_s("k", 10) for _ in range(3)] == [0.0, 0.0, pytest.approx(0.1)]
    clock.advance(0.2)
    assert limit.wait_s("k", 1) == 0.0


def test_a_debt_is_waited_off() -> None:
    clock = ManualClock()
    limit = RateLimit(clock, 10.0, 5.0)
    assert limit.wait_s("k", 105) == 0.0
    wait_s = limit.wait_s("k", 1)
    assert wait_s == pytest.approx(10.0)
    clock.advance(wait_s + 0.1)
    assert limit.wait_s("k", 1) == 0.0


def test_keys_do_not_share() -> None:
    limit = RateLimit(ManualClock(), 1.0, 1.0)
    assert limit.wait_s("a", 5) == 0.0
    assert limit.wait_s("a", 1) > 0
    assert limit.wait_s("b", 1) == 0.0


def test_memory() -> None:
    gate = MemoryGate(100)
    assert gate.enter(1000)  # one alone always gets in
    assert not gate.enter(1)
    gate.leave(1000)
    assert gate.enter(60)
    assert not gate.enter(50)
    assert gate.enter(40)
    assert gate.held == 100


def test_a_rate_is_positive() -> None:
    with pytest.raises(ConfigError):
        CollectorConfig(rate_envelopes_per_s=0)
