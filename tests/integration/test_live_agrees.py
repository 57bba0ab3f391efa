"""``callmeter.live`` and ClickHouse say the same of closed windows, late events included."""

from __future__ import annotations

import random
import urllib.request
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from callmeter.clock import SystemClock
from callmeter.embedded import LOG_FILE
from callmeter.ids import uuid7
from callmeter.log.sqlite_log import SqliteLog
from callmeter.money import from_pico
from callmeter.schema.live import LiveModel, LiveProject, decode_live
from callmeter_sinks.queries import Figures
from support.embedded import Pipeline
from support.metering import call_end, envelope

MINUTE_US = 60_000_000


def live(embedded: Pipeline, project: str) -> LiveProject | None:
    with SqliteLog(embedded.directory / LOG_FILE) as log:
        for partition in range(log.partitions):
            value = log.rows("live", partition).get(project.encode())
            if value is not None:
                return decode_live(value)
    return None


def calls_in(said: LiveProject | None, window: str) -> int:
    if said is None:
        return 0
    return sum(m.calls for each in said.windows if each.window == window for m in each.models)


def as_live(model: LiveModel) -> dict[str, Any]:
    return {
        "calls": model.calls,
        "failures": model.failures,
        "tokens": (model.input_tokens, model.output_tokens),
        "cost": from_pico(int(model.cost_pico)),
        "unknown": (model.unpriced, model.usage_unknown),
        "p50_ms": model.latency_p50_us / 1000,
        "p99_ms": model.latency_p99_us / 1000,
    }


def as_stored(figures: Figures) -> dict[str, Any]:
    return {
        "calls": figures.calls,
        "failures": figures.failures,
        "tokens": (figures.input_tokens or 0, figures.output_tokens or 0),
        "cost": figures.cost_usd or Decimal(0),
        "unknown": (figures.unpriced_calls, figures.usage_unknown),
        "p50_ms": pytest.approx(figures.latency_p50_ms, abs=0.001),
        "p99_ms": pytest.approx(figures.latency_p99_ms, abs=0.001),
    }


def stored(embedded: Pipeline, project: str, window: str) -> Mapping[tuple[Any, ...], Figures]:
    report = embedded.queries.report(by=[window, "provider", "model"], project=project)
    return {
        (row.key[window], row.key["provider"], row.key["model"]): row.figures for row in report.rows
    }


def test_closed_windows_are_the_same_in_live_and_in_clickhouse(
    embedded: Pipeline, project: str
) -> None:
    rng = random.Random(11)
    now_us = SystemClock().now_us()
    closed_us = (now_us // MINUTE_US - 2) * MINUTE_US
    name = uuid7()

    def call(at_us: int) -> dict[str, Any]:
        provider, model = rng.choice(
            [("openai", "gpt-4o-mini"), ("openai", "gpt-4o"), ("nobody", "unheard-of")]
        )
        return call_end(
            call_id=uuid7(), started_us=at_us, ts_us=at_us, provider=provider, model=model,
            status=rng.choice(["ok", "ok", "error"]), latency_us=rng.randrange(1, 10**7),
            usage=rng.choice([None, {"input": rng.randrange(9999), "output": 7, "image": 1}]),
            cost_pico=rng.choice([None, None, str(rng.randrange(10**15))]),
        )  # fmt: skip

    def send(seq: int, starts_us: list[int]) -> None:
        tool = call_end(call_id=uuid7(), started_us=starts_us[0], operation="execute_tool")
        lines = [*(call(at_us) for at_us in starts_us), tool]
        accepted = (41, 67, 83)[seq]
        data = envelope(
            lines, source=name, seq=seq, sent_us=now_us, project=project, accepted=accepted
        )
        with urllib.request.urlopen(f"{embedded.url}/v1/envelopes", data, timeout=60):
            pass

    def spread(minute_us: int, count: int) -> list[int]:
        return [minute_us + rng.randrange(MINUTE_US) for _ in range(count)]

    send(0, spread(closed_us, 40))
    send(1, spread(closed_us + MINUTE_US, 25))
    # Late: the minute before had been passed when these came; a duplicate changes nothing.
    embedded.wait(lambda: calls_in(live(embedded, project), "minute") == 65)
    send(2, spread(closed_us, 15))
    send(2, spread(closed_us, 15))
    embedded.settle(name, 3)
    embedded.wait(lambda: calls_in(live(embedded, project), "minute") == 80)
    said = live(embedded, project)
    assert said is not None
    for window, count in (("minute", 2), ("hour", None), ("day", None)):
        there = stored(embedded, project, window)
        assert sum(figures.calls for figures in there.values()) == 80
        mine = {
            (datetime.fromtimestamp(each.start_us / 1e6, UTC), m.provider, m.model): m
            for each in said.windows
            if each.window == window
            for m in each.models
        }
        assert mine.keys() == there.keys()
        assert count is None or len({start for start, *_ in mine}) == count
        for key, model in mine.items():
            assert as_live(model) == as_stored(there[key])
