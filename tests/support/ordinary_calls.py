"""Calls that say nothing unusual, a price for them, and what a reader makes of envelopes."""

from __future__ import annotations

import os
from fractions import Fraction

import pytest

from callmeter.pricing import PriceBook, Pricer
from callmeter.pricing.book import OWN, Entry, Match, Period, Provider, Rate
from callmeter_processors.fold import Fold
from callmeter_processors.judge import open_envelope
from callmeter_processors.limits import MeterLimits
from callmeter_processors.ordinary import Run, compiled, new_reader
from support.metering import NOW_US, envelope, source

BOOK = PriceBook(
    "v1",
    (Provider("openai"),),
    (
        Entry(
            "openai",
            "gpt-4o-mini",
            Match("equals", "gpt-4o-mini"),
            (Period({"input": Rate(Fraction(150_000)), "output": Rate(Fraction(600_001, 3))}),),
            OWN,
        ),
    ),
)
FENCE_US = NOW_US + MeterLimits().future_us

#: Calls that say nothing unusual.
ORDINARY = [
    {},
    {"name": "Zürich 東京", "tags": {"team": "größe"}, "user": "é" * 128},
    {"usage": {}},
    {"usage": None},
    {"operation": "execute_tool", "usage": None},
    {"model": "unheard-of"},
    {"response_model": "gpt-4o-mini-2024-07-18", "finish_reason": "stop", "http_status": 200},
    {"service_tier": "batch"},
    {"attempts": 3},
    {"status": "error", "error_type": "TimeoutError", "error_message": "it took " * 500},
    {"latency_us": None, "ttft_us": 0, "parent_span_id": "0" * 16},
    {"attributes": {"temperature": "0.7"}, "tags": {}},
]


def needs_compiled() -> None:
    """Skip where nothing was compiled; fail there where it has to be, as in CI."""
    if compiled():
        return
    text = "nothing was compiled: a C compiler is missing, see CONTRIBUTING.md"
    if os.environ.get("CALLMETER_COMPILED") == "require":
        pytest.fail(f"{text} (CALLMETER_COMPILED=require)", pytrace=False)
    pytest.skip(text)


def runs_of(*lines, reader=None, fence_us: int = FENCE_US) -> list[Run]:
    """What a reader takes of an envelope, and what it leaves."""
    value = envelope(lines)
    header = open_envelope(value, source(1).encode()).header
    return Fold(Pricer(BOOK)).read(reader or new_reader(), header, value, fence_us)
