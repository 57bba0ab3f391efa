"""The manual clock moves both times together, and only forward."""

from __future__ import annotations

import pytest

from callmeter.clock import ManualClock, SystemClock


def test_both_times_move_together() -> None:
    clock = ManualClock(1_000_000)
    began_s = clock.monotonic_s()
    clock.advance(2.5)
    assert clock.now_us() == 3_500_000
    assert clock.monotonic_s() - began_s == 2.5
    with pytest.raises(ValueError, match="does not go back"):
        clock.advance(-1)


def test_the_systems_clock_does_not_go_back() -> None:
    clock = SystemClock()
    readings = [clock.monotonic_s() for _ in range(100)]
    assert readings == sorted(readings)
    assert clock.now_us() > 1_700_000_000_000_000
