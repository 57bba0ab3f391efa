"""A guard on a clock that moves only when told."""

from collections.abc import Callable
from typing import Any

import pytest

from callmeter import BudgetGuard
from callmeter.clock import ManualClock
from callmeter.testing import Capture, capture


@pytest.fixture
def captured():
    with capture() as it:
        yield it


@pytest.fixture
def clock(captured: Capture) -> ManualClock:
    return captured.clock


@pytest.fixture
def guarded(clock: ManualClock) -> Callable[..., BudgetGuard]:
    def make(model: Any = None, limit: Any = None, **more: Any) -> BudgetGuard:
        return BudgetGuard(model, limit, clock=clock, **more)

    return make
