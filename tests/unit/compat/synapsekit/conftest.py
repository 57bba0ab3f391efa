"""What a test's program meters, and no switch or observer that outlives its test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from callmeter.compat.synapsekit import Span, observe
from callmeter.compat.synapsekit.switches import SWITCHES
from callmeter.testing import Capture, capture


@pytest.fixture
def callmeter_capture() -> Iterator[Capture]:
    with capture() as captured:
        yield captured


@pytest.fixture
def spans() -> Iterator[list[Span]]:
    """Spans as they end."""
    seen: list[Span] = []
    remove = observe(seen.append)
    yield seen
    remove()


@pytest.fixture(autouse=True)
def _fresh_switches() -> Iterator[None]:
    yield
    SWITCHES.inputs = SWITCHES.outputs = True
