"""Any order across partitions, any batching and any crash: the same sums, alerts and statuses."""

from __future__ import annotations

import random
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from callmeter.log.record import LogRecord
from callmeter.schema.budgets import next_version
from callmeter.schema.spend import Live
from support.watching import HOUR, NOON_US, Watched, budget, record, totals, usd

BUDGETS = (
    budget("team", usd="5", action="stop"),
    budget("users", usd="1", per="user", thresholds=["50%", "0.75", "100%"]),
    budget("hourly", usd="2", window="hour", limit_tokens=500),
)
HOUR_US = 3_600_000_000
END_US = NOON_US + 3 * HOUR_US


def make_records(rng: random.Random, count: int) -> list[list[LogRecord]]:
    """Three meters' records, each in its own order; spend of two days, some of it late."""
    meters: list[list[LogRecord]] = [[], [], []]
    for offset in range(count):
        partition = rng.randrange(3)
        lines: list[Any] = []
        for _ in range(rng.randrange(1, 4)):
            hour = HOUR - rng.choice([0, 0, 1, 2, 13])
            name = rng.choice(BUDGETS)
            entity = rng.choice(["alice", "bob"]) if name.per else ""
            cents = f"0.{rng.randrange(100):02d}"
            line = usd(cents, name=name.id, hour=hour, entity=entity, window=name.window)
            lines.append(msgspec.structs.replace(line, tokens=rng.randrange(100)))
        lines.append(
            Live(project="shop", minute=hour * 60, model="m", calls=1, cost_pico="7",
                 latency_hist={rng.randrange(600): 1})
        )  # fmt: skip
        at_us = NOON_US + rng.randrange(2 * HOUR_US)
        meters[partition].append(record(lines, partition=partition, last=offset, at_us=at_us))
    return meters


def interleave(rng: random.Random, meters: list[list[LogRecord]]) -> list[LogRecord]:
    """One order of all records that keeps each meter's own."""
    left = [list(records) for records in meters if records]
    mixed = []
    while left:
        records = rng.choice(left)
        mixed.append(records.pop(0))
        left = [each for each in left if each]
    return mixed


def run(records: list[LogRecord], plan: list[str]) -> Watched:
    """Everything watched, then an edit that changes no terms: every status is of the end."""
    watched = Watched(BUDGETS)
    watched.run(records, plan, END_US)
    watched.budgets = [
        next_version(each, msgspec.structs.replace(each, note="edited"), END_US) for each in BUDGETS
    ]
    watched.run([], tick_us=END_US)
    return watched


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_order_batching_and_crashes_change_nothing(data):
    rng = data.draw(st.randoms(use_true_random=False))
    meters = make_records(rng, data.draw(st.integers(1, 40)))
    plans = st.lists(st.sampled_from(["go", "checkpoint", "crash"]), max_size=60)
    first = run(interleave(rng, meters), data.draw(plans))
    second = run(interleave(rng, meters), data.draw(plans))
    assert first.statuses == second.statuses
    assert first.live == second.live
    ids = [alert.id for alert in first.alerts]
    assert len(ids) == len(set(ids))
    assert set(ids) == {alert.id for alert in second.alerts}


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_the_status_is_the_plain_sum(data):
    rng = data.draw(st.randoms(use_true_random=False))
    records = interleave(rng, make_records(rng, 30))
    watched = run(records, data.draw(st.lists(st.sampled_from(["checkpoint", "crash"]))))
    truth = totals(records)
    today = HOUR // 24
    for name, entity in {key[:2] for key in truth}:
        status = watched.statuses[f"{name}|{entity}"]
        if status.window == "day":
            assert int(status.spend_pico) == truth[name, entity, today]
            yesterday = truth[name, entity, today - 1]
            before = 0 if isinstance(status.previous, msgspec.UnsetType) else status.previous
            assert (int(before.spend_pico) if before else 0) == yesterday
    seen = watched.statuses["team|"].included if "team|" in watched.statuses else None
    if seen is not None:
        assert max(seen.values()) <= 29


def test_an_alert_is_expected_exactly_where_the_sum_says_so():
    rng = random.Random(7)
    records = interleave(rng, make_records(rng, 400))
    watched = run(records, ["checkpoint", "go", "crash"] * 200)
    expected = set()
    for (name, entity, day), pico in totals(records).items():
        levels = {"team": [2.5, 4, 5], "users": [0.5, 0.75, 1]}.get(name, [])
        expected |= {(name, entity, day, usd) for usd in levels if pico >= usd * 10**12}
    got = set()
    for alert in watched.alerts:
        if alert.kind == "threshold" and alert.rule != "hourly":
            usd_level = {"50%": 0.5, "80%": 0.8, "100%": 1, "0.75": 0.75}[alert.threshold]
            scale = 5 if alert.rule == "team" else 1
            day = alert.start_us // 86_400_000_000
            got.add((alert.rule, alert.entity, day, usd_level * scale))
    assert len(expected) > 8
    assert got == expected
