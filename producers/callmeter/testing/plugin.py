"""The pytest plugin (entry point ``pytest11``): the fixture ``callmeter_capture``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from callmeter.testing import Capture


@pytest.fixture
def callmeter_capture() -> Iterator[Capture]:
    """What the test's program meters: see ``callmeter.testing``."""
    from callmeter.testing import capture

    with capture() as captured:
        yield captured
