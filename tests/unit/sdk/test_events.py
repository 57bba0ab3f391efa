"""Metrics, notes, money apart from calls, and experiments."""

from decimal import Decimal

import pytest

import callmeter
from callmeter.testing import Capture


def test_a_metric(captured: Capture) -> None:
    callmeter.metric("loss", 0.42, step=3, labels={"split": "train", "n": 1})
    captured.clock.advance(1.0)
    callmeter.metric("loss", 1, ts=1_600_000_000.5)
    callmeter.metric("loss", True)  # type: ignore[arg-type]
    first, second, third = captured.events
    assert first == {
        "kind": "metric",
        "ts_us": 1_700_000_000_000_000,
        "name": "loss",
        "value": 0.42,
        "step": 3,
        "labels": {"split": "train", "n": "1"},
    }
    assert (second["ts_us"], second["value"]) == (1_600_000_000_500_000, 1.0)
    assert third["value"] == 1.0


def test_the_time_of_a_metric_is_when_it_was_given_not_when_it_was_sent(captured: Capture) -> None:
    callmeter.metric("m", 1.0)
    captured.clock.advance(10.0)
    (event,) = captured.events
    assert event["ts_us"] == 1_700_000_000_000_000


def test_an_annotation(captured: Capture) -> None:
    with callmeter.generation(model="m") as call:
        pass
    callmeter.annotation("good answer", call=call, metadata={"z": 1, "a": [1, {"b": None}]})
    callmeter.annotation("by id", call=call.id)
    callmeter.annotation("on the experiment", experiment="run-1")
    _, note, by_id, on_run = captured.events
    assert note["call_id"] == by_id["call_id"] == call.id
    assert list(note["metadata"]) == ["z", "a"]
    assert on_run["experiment"] == "run-1"
    assert "call_id" not in on_run


def test_money_apart_from_its_call(captured: Capture) -> None:
    with callmeter.generation(model="m", provider="p", user="u") as call:
        pass
    captured.clock.advance(60)
    callmeter.cost(Decimal("-0.5"), call=call, source="correction", note="rebate")
    callmeter.cost("1", model="x", started=1_600_000_000, source="bill")
    callmeter.cost(2, source="bill")
    _, correction, bill, plain = captured.events
    assert correction["cost_pico"] == "-500000000000"
    assert (correction["provider"], correction["model"], correction["user"]) == ("p", "m", "u")
    assert correction["operation"] == "chat"
    assert correction["started_us"] == 1_700_000_000_000_000
    assert (correction["source"], correction["note"]) == ("correction", "rebate")
    assert (bill["started_us"], bill["cost_pico"]) == (1_600_000_000_000_000, "1000000000000")
    assert plain["started_us"] == plain["ts_us"]


def test_an_experiment(captured: Capture) -> None:
    run = callmeter.experiment("run-1", description="first", meta={"lr": 0.1})
    with run:
        run.metric("loss", 0.5, step=1)
        run.annotation("halfway", metadata={"epoch": 1})
    opened, running, metric, note, done = captured.events
    assert opened["meta"] == {"lr": 0.1}
    assert opened["description"] == "first"
    assert [running["status"], done["status"]] == ["running", "done"]
    assert metric["experiment"] == note["experiment"] == "run-1"
    assert {e["slug"] for e in (opened, running, done)} == {"run-1"}


def test_an_experiment_that_fails(captured: Capture) -> None:
    with pytest.raises(ValueError, match="diverged"), callmeter.experiment("run-1"):
        raise ValueError("diverged" * 2000)
    error = captured.events[-1]
    assert (error["status"], error["error_name"]) == ("error", "ValueError")
    assert len(error["error_detail"]) == 8000
