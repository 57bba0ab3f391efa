"""A program that seeds ``random`` gets the numbers with callmeter that it would get without."""

from __future__ import annotations

import logging
import random

import callmeter
from callmeter.compat.synapsekit import switches
from callmeter.compat.syvain import pump
from callmeter.testing import capture


def test_calls_and_sampling_leave_the_global_numbers_alone():
    before = random.getstate()
    with capture(sample_rate=0.5), callmeter.generation(model="m") as call:
        call.usage(input=1, output=1)
        assert {switches.root_is_kept() for _ in range(200)} == {True, False}
    assert random.getstate() == before


def test_pauses_between_tries_leave_the_global_numbers_alone():
    before = random.getstate()
    made = pump.Pump(list, 0.01, logging.getLogger("pump"))
    assert len({made._pause_s(3) for _ in range(20)}) > 1
    assert random.getstate() == before
