"""What calls are worth, and how events become deltas and controls."""

import json

import pytest

from callmeter.schema.events import MAX_DURATION_US, MAX_UNITS
from callmeter_processors.limits import MeterLimits
from callmeter_processors.meter import PartitionMeter
from support.metering import (
    LOG,
    NOW_US,
    TablePricer,
    call_end,
    deltas,
    envelope,
    envelopes,
    oracle_bucket,
    record,
)


def meter_of(*events, pricer=None, limits=None, **header):
    meter = PartitionMeter(LOG, 0, pricer or TablePricer(), limits)
    meter.process(record(envelope(events, **header)))
    return meter.checkpoint().outputs


def one_line(*events, pricer=None):
    (metered,) = envelopes(meter_of(*events, pricer=pricer))
    return metered.lines[0]


def one_delta(*events, **header):
    (metered,) = deltas(meter_of(*events, **header))
    (delta,) = metered.lines
    return delta


def controls_of(*events):
    return deltas(meter_of(*events))[0].head["controls"]


def test_a_priced_call_carries_cost_source_and_version():
    out = one_line(call_end(usage={"input": 10, "output": 20}))
    assert out["cost_pico"] == str(10 * 150_000 + 20 * 600_000)
    assert (out["cost_source"], out["price_version"]) == ("table", "v1")


@pytest.mark.parametrize(
    ("event", "cost", "unpriced", "unknown"),
    [
        (call_end(), 13_500_000, 0, 0),
        (call_end(cost_pico="7"), 7, 0, 0),
        (call_end(cost_pico="7", usage=None), 7, 0, 1),
        (call_end(cost_pico="0"), 0, 0, 0),
        (call_end(usage=None), None, 0, 1),
        (call_end(usage={}), 0, 0, 0),
        (call_end(model="unheard-of"), None, 1, 0),
        (call_end(model="unheard-of", usage=None), None, 0, 1),
        (call_end(model="unheard-of", cost_pico="7"), 7, 0, 0),
        (call_end(model="my-deployment", response_model="gpt-4o-mini"), 13_500_000, 0, 0),
        (call_end(service_tier="batch"), 6_750_000, 0, 0),
        (call_end(operation="execute_tool"), None, 0, 0),
        (call_end(operation="program", usage=None), None, 0, 0),
    ],
)
def test_the_worth_of_a_call(event, cost, unpriced, unknown):
    out, delta, controls = one_line(event), one_delta(event), controls_of(event)
    assert out.get("cost_pico") == (None if cost is None else str(cost))
    for measure in (delta, controls):
        assert int(measure.get("cost_pico", "0")) == (cost or 0)
        assert measure.get("unpriced", 0) == unpriced
        assert measure.get("usage_unknown", 0) == unknown


def test_an_explicit_cost_is_kept_as_reported():
    out = one_line(call_end(cost_pico="7", cost_source="litellm", price_version="x"))
    assert (out["cost_source"], out["price_version"]) == ("litellm", "x")
    assert one_line(call_end(cost_pico="7"))["cost_source"] == "reported"


def test_the_pricer_is_told_of_tier_and_batch():
    pricer = TablePricer()
    tiers = (None, "priority", "batch")
    meter_of(*(call_end(service_tier=tier) for tier in tiers), pricer=pricer)
    assert pricer.asked == [(None, False), ("priority", False), (None, True)]


def test_a_delta_holds_every_measure():
    started_us = NOW_US - 1_000_000
    events = [
        call_end(phase="p", latency_us=2_000_000, ttft_us=5, attempts=3),
        call_end(phase="p", latency_us=0, started_us=started_us - 1),
        call_end(phase="p", latency_us=None, usage={"input": 1, "image": 2}),
    ]
    assert one_delta(*events, environment="prod", service="api") == {
        "minute": started_us // 60_000_000,
        "project": "shop",
        "environment": "prod",
        "service": "api",
        "provider": "openai",
        "model": "gpt-4o-mini",
        "operation": "chat",
        "phase": "p",
        "status": "ok",
        "calls": 3,
        "attempts": 5,
        "usage": {"input": 21, "output": 40, "image": 2},
        "cost_pico": str(21 * 150_000 + 40 * 600_000),
        "latency_count": 2,
        "latency_sum_us": 2_000_000,
        "latency_min_us": 0,
        "latency_max_us": 2_000_000,
        "latency_hist": {oracle_bucket(2_000_000): 1, "0": 1},
        "ttft_count": 1,
        "ttft_hist": {oracle_bucket(5): 1},
        "first_us": started_us - 1,
        "last_us": started_us,
    }


def test_without_latencies_there_is_no_minimum():
    delta = one_delta(call_end(latency_us=None))
    assert "latency_min_us" not in delta
    assert "latency_max_us" not in delta


def test_every_dimension_and_minute_is_a_line_of_its_own():
    minute_us = 60_000_000
    names = ("provider", "model", "operation", "phase", "status")
    events = [call_end(), *(call_end(**{name: "other"}) for name in names)]
    events.append(call_end(started_us=NOW_US - minute_us))
    (metered,) = deltas(meter_of(*events))
    assert len(metered.lines) == len(events)
    assert sum(delta["calls"] for delta in metered.lines) == len(events)


def test_failures_are_what_is_not_ok():
    assert one_delta(call_end(status="cancelled"))["failures"] == 1
    assert controls_of(call_end(status="error"), call_end())["failures"] == 1


def test_a_cost_event_adds_money_to_its_own_dimensions_only():
    cost = {
        "kind": "cost",
        "ts_us": NOW_US,
        "started_us": NOW_US - 86_400_000_000,
        "cost_pico": "-25",
        "source": "correction",
        "service": "billing",
        "model": "gpt-4o",
    }
    assert one_delta(cost, environment="prod", service="api") == {
        "minute": (NOW_US - 86_400_000_000) // 60_000_000,
        "project": "shop",
        "environment": "prod",
        "service": "billing",
        "provider": "",
        "model": "gpt-4o",
        "operation": "",
        "phase": "",
        "status": "",
        "cost_pico": "-25",
    }
    controls = controls_of(cost, call_end())
    assert (controls["costs"], controls["calls"]) == (1, 1)
    assert controls["cost_pico"] == str(13_500_000 - 25)


def test_controls_speak_of_the_whole_checkpoint():
    events = [
        call_end(),
        call_end(status="error", usage=None),
        call_end(operation="program", usage=None),
        call_end(model="unheard-of", usage={"input": 1}),
        {"kind": "heartbeat", "ts_us": NOW_US, "open": 0},
        b"nonsense",
    ]
    assert controls_of(*events) == {
        "envelopes": 1,
        "duplicates": 0,
        "refused_envelopes": 0,
        "events": 5,
        "refused": 1,
        "calls": 3,
        "operations": 1,
        "failures": 1,
        "costs": 0,
        "cost_pico": "13500000",
        "unpriced": 1,
        "usage_unknown": 1,
        "usage": {"input": 11, "output": 20},
    }


def test_many_units_make_many_lines_and_the_same_sums():
    events = [call_end(usage={f"unit-{i}-{j}": 1 for j in range(60)}) for i in range(20)]
    (metered,) = deltas(meter_of(*events))
    assert len(metered.lines) == 3
    assert [delta.get("calls", 0) for delta in metered.lines] == [20, 0, 0]
    units = [unit for delta in metered.lines for unit in delta["usage"]]
    assert len(units) == len(set(units)) == 1200
    usage = metered.head["controls"]["usage"]
    assert len(usage) == 513
    assert sum(usage.values()) == 1200


def test_deltas_are_split_by_size_and_numbered():
    limits = MeterLimits(delta_part_bytes=1000)
    parts = deltas(meter_of(*(call_end(phase=f"phase-{i}") for i in range(20)), limits=limits))
    assert [part.head["part"] for part in parts] == list(range(len(parts)))
    assert {part.head["parts"] for part in parts} == {len(parts)}
    assert len(parts) > 3
    assert [("controls" in part.head) for part in parts] == [True] + [False] * (len(parts) - 1)
    assert sum(delta["calls"] for part in parts for delta in part.lines) == 20


def test_sums_of_the_largest_values_fit_63_bits():
    """A number over 64 bits in one delta would make ClickHouse read the whole line as zeros."""
    most_events = 500 * 500
    assert most_events * MAX_DURATION_US < 2**63
    assert most_events * MAX_UNITS < 2**63
    delta = one_delta(call_end(latency_us=MAX_DURATION_US, usage={"input": MAX_UNITS}))
    assert delta["latency_sum_us"] == MAX_DURATION_US


def test_money_is_summed_exactly_beyond_64_bits():
    pico = 10**24 - 1
    delta = one_delta(*(call_end(cost_pico=str(pico)) for _ in range(3)))
    assert delta["cost_pico"] == str(3 * pico)
    assert json.loads(json.dumps(delta))["cost_pico"] == "2999999999999999999999997"
