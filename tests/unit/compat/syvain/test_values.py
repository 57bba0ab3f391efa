"""What metrics and annotations may hold. Rows 126–131, 134–136, 138, 143."""

from __future__ import annotations

import json
import logging

import pytest

from callmeter.compat.syvain import Collector, JsonlCollector, NoopCollector
from callmeter.compat.syvain.cardinality import MAX_SERIES


def metrics(stub) -> list[dict]:
    return [event for event in stub.delivered if event["kind"] == "metric"]


def test_a_step_must_be_said_and_may_be_none(make, stub):
    experiment = make().experiment("s")
    with pytest.raises(TypeError):
        experiment.metric("loss", 0.5)
    experiment.metric("loss", 0.5, step=None)
    experiment.metric("loss", 0.5, step=3.0)
    with pytest.raises(TypeError):
        experiment.metric("loss", 0.5, step="3")
    with pytest.raises(ValueError):
        experiment.metric("loss", 0.5, step=2**63)
    experiment.flush_or_raise()
    assert [m.get("step") for m in metrics(stub)] == [None, 3]


@pytest.mark.acceptance(127)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_what_is_not_finite_is_dropped_with_one_warning(make, stub, caplog, value):
    experiment = make().experiment("s")
    experiment.metric("loss", value, step=1)
    assert [r.levelno for r in caplog.records] == [logging.WARNING]
    assert experiment.flush().delivered_metrics == 0
    assert stub.writes == []


@pytest.mark.acceptance(128)
def test_what_is_no_number_raises_at_the_call(make, stub):
    experiment = make().experiment("s")
    with pytest.raises(ValueError):
        experiment.metric("m", "abc", 1)
    experiment.metric("m", True, 1)
    experiment.metric("m", "1.5", 1)
    experiment.flush_or_raise()
    assert [m["value"] for m in metrics(stub)] == [1.0, 1.5]
    assert all(type(m["value"]) is float for m in metrics(stub))


@pytest.mark.acceptance(129)
def test_seconds_with_a_fraction(make, stub):
    experiment = make().experiment("s")
    experiment.metric("m", 1, step=0, timestamp=1700000000.5)
    experiment.flush_or_raise()
    assert metrics(stub)[0]["ts_us"] == 1700000000500 * 1000


@pytest.mark.acceptance(130)
def test_whole_seconds(make, stub):
    experiment = make().experiment("s")
    experiment.metric("m", 1, step=0, timestamp=1700000000)
    experiment.flush_or_raise()
    assert metrics(stub)[0]["ts_us"] == 1700000000000 * 1000


@pytest.mark.acceptance(131)
@pytest.mark.parametrize(
    ("given", "kept_ms"),
    [
        (1700000000000, 1700000000000),
        (9999999999.9, 9999999999900),
        (10000000000, 10000000000),
    ],
)
def test_milliseconds_from_ten_milliards_on(make, stub, tmp_path, given, kept_ms):
    experiment = make().experiment("s")
    experiment.metric("m", 1, step=0, timestamp=given)
    experiment.flush_or_raise()
    assert metrics(stub)[0]["ts_us"] == kept_ms * 1000

    into_file = JsonlCollector(tmp_path / "m.jsonl").experiment("s")
    into_file.metric("m", 1, step=0, timestamp=given)
    into_file.flush_or_raise()
    last = (tmp_path / "m.jsonl").read_text().splitlines()[-1]
    assert json.loads(last)["timestamp_ms"] == kept_ms


def test_times_that_are_none_are_refused(make):
    experiment = make().experiment("s")
    for wrong in (-1, float("nan"), float("inf")):
        with pytest.raises(ValueError):
            experiment.metric("m", 1, step=0, timestamp=wrong)


@pytest.mark.acceptance(134)
def test_metadata_is_copied_at_the_call(make, stub):
    experiment = make().experiment("s")
    labels, notes = {"split": "train"}, {"paths": ["a"], "deep": {"x": 1}}
    experiment.metric("loss", 1, step=0, metadata=labels)
    experiment.annotation("saved", metadata=notes)
    labels["split"] = "changed"
    notes["paths"].append("b")
    notes["deep"]["x"] = 2
    experiment.flush_or_raise()
    metric, note = stub.delivered
    assert metric["labels"] == {"split": "train"}
    assert note["metadata"] == {"paths": ["a"], "deep": {"x": 1}}


@pytest.mark.acceptance(135)
@pytest.mark.parametrize(
    ("name", "metadata"),
    [
        ("m", {f"k{n}": "" for n in range(33)}),
        ("m", {"k" * 129: "v"}),
        ("m", {"ü" * 64 + "k": "v"}),
        ("m", {"k": "v" * 513}),
        ("m", {"k": "ü" * 257}),
        # 8 keys of 500 bytes, one that makes it 4097 with quotes, colons, commas and braces
        ("m", {**{f"k{n}": "v" * 500 for n in range(8)}, "rest": "v" * (4097 - 8 * 508 - 11)}),
        ("m", {"k": 1}),
        ("m", {"k": None}),
        ("m", {1: "v"}),
        ("größe", {}),
        ("n" * 257, {}),
        ("", {}),
    ],
)
def test_metadata_over_its_limits_is_refused_at_the_call(make, stub, name, metadata):
    experiment = make().experiment("s")
    with pytest.raises(ValueError):
        experiment.metric(name, 1, step=0, metadata=metadata)
    assert experiment.flush().pending_metrics == 0
    assert stub.writes == []


def test_metadata_at_its_limits_is_taken(make, stub):
    experiment = make().experiment("s")
    whole = {**{f"k{n}": "v" * 500 for n in range(8)}, "rest": "v" * (4096 - 8 * 508 - 11)}
    assert len(json.dumps(whole, separators=(",", ":"))) == 4096
    for metadata in ({f"k{n}": "" for n in range(32)}, {"k" * 128: "v" * 512}, whole):
        experiment.metric("n" * 256, 1, step=0, metadata=metadata)
    assert experiment.flush_or_raise().delivered_metrics == 3
    assert [m["labels"] for m in metrics(stub)][2] == whole


@pytest.mark.acceptance(136)
def test_past_4096_series_new_ones_are_one(make, stub, caplog):
    assert MAX_SERIES == 4096
    experiment = make().experiment("s")
    for n in range(4096 + 904):
        experiment.metric("loss", n, step=n, metadata={"request": str(n)})
    experiment.metric("loss", -1, step=0, metadata={"request": "17"})  # known before the limit
    experiment.metric("accuracy", 1, step=0, metadata={"request": "new"})  # another metric
    assert [r.levelno for r in caplog.records] == [logging.WARNING]
    assert "more than 4096 series" in caplog.text
    assert experiment._guard.series() == 4096 + 1
    assert experiment.flush_or_raise().delivered_metrics == 5002
    labels = [tuple(m["labels"].items()) for m in metrics(stub)]
    assert len(set(labels[:5000])) == 4096 + 1
    assert labels.count((("callmeter.overflow", "true"),)) == 904
    assert labels[5000:] == [(("request", "17"),), (("request", "new"),)]


@pytest.mark.acceptance(138)
def test_annotations_have_1_to_16000_characters(make, stub):
    experiment = make().experiment("s")
    for wrong in ("", "x" * 16001):
        with pytest.raises(ValueError):
            experiment.annotation(wrong)
    experiment.annotation("x" * 16000)
    overhead = len('{"k":""}')
    with pytest.raises(ValueError):
        experiment.annotation("x", metadata={"k": "v" * (65536 - overhead + 1)})
    experiment.annotation("y", metadata={"k": "v" * (65536 - overhead)})
    with pytest.raises(ValueError):
        experiment.annotation("x", metadata={"k": object()})
    assert experiment.flush_or_raise().delivered_annotations == 2
    assert [len(event["text"]) for event in stub.delivered] == [16000, 1]


def test_large_annotations_are_split_over_envelopes(make, stub):
    experiment = make().experiment("s")
    for n in range(20):
        experiment.annotation(str(n), metadata={"k": "\x01" * 10_000})  # six bytes each as JSON
    assert experiment.flush_or_raise().delivered_annotations == 20
    assert [event["text"] for event in stub.delivered] == [str(n) for n in range(20)]
    assert max(len(request.body) for request in stub.writes) <= 256 * 1024


@pytest.mark.acceptance(143)
def test_a_million_ids_are_distinct():
    experiment = NoopCollector(max_queue_items=10**6, flush_delay_seconds=3600).experiment("s")
    for n in range(10**6):
        experiment.metric("m", 1.0, step=n)
    waiting = experiment._lane.queue.take(10**6, 10**12, experiment._lane.queue.mark())
    assert len(waiting) == 10**6
    assert len({item.event_id for item in waiting}) == 10**6


def test_ids_differ_between_processes(make, stub):
    from callmeter.compat.syvain.items import EventIds

    assert EventIds().new() != EventIds().new()
    assert isinstance(make(), Collector)
