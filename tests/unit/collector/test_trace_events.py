"""The Monitor hook's JSON becomes events that the schema accepts."""

from __future__ import annotations

import msgspec
import pytest

from callmeter.collector.trace_events import MAX_PAYLOAD_BYTES, TraceError, trace_event
from callmeter.ids import span_id
from callmeter.schema.events import CallBegin, CallEnd

CALL = "6f1c1f9e-1111-4222-8333-444455556666"
BEGIN = {
    "event": "call_begin",
    "call_id": CALL,
    "module_name": "generator",
    "module_description": "Answers.",
    "timestamp": 1_700_000_000.25,
    "inputs": {"type": "data", "data": [{"q": "why?"}]},
}
END = {
    "event": "call_end",
    "call_id": CALL,
    "module_name": "generator",
    "module_description": "Answers.",
    "timestamp": 1_700_000_001.75,
    "duration": 1.5,
    "outputs": {"type": "data", "data": [{"a": "so"}]},
    "exception": None,
    "success": True,
}


def begin(**changes: object) -> CallBegin:
    return msgspec.json.decode(trace_event({**BEGIN, **changes}).line, type=CallBegin)


def end(**changes: object) -> CallEnd:
    return msgspec.json.decode(trace_event({**END, **changes}).line, type=CallEnd)


def test_begin() -> None:
    got = begin()
    assert (got.ts_us, got.started_us) == (1_700_000_000_250_000,) * 2
    assert (got.call_id, got.trace_id) == (CALL, CALL.replace("-", ""))
    assert (got.operation, got.name, got.node) == ("node", "generator", "generator")
    assert got.attributes == {"module_description": "Answers."}
    assert msgspec.json.decode(bytes(got.inputs)) == BEGIN["inputs"]
    assert trace_event(BEGIN).line.startswith(b'{"kind":"call_begin"')


def test_end() -> None:
    got = end()
    assert (got.started_us, got.latency_us) == (1_700_000_000_250_000, 1_500_000)
    assert (got.status, got.error_message) == ("ok", "")
    assert msgspec.json.decode(bytes(got.outputs)) == END["outputs"]
    assert got.usage is msgspec.UNSET
    assert got.cost_pico is msgspec.UNSET


def test_a_failure() -> None:
    got = end(exception="x", success=False, outputs=None)
    assert (got.status, got.error_message, got.outputs) == ("error", "x", msgspec.UNSET)
    assert end(exception="x", success=None).status == "error"
    assert end(exception=None, success=False).status == "error"


def test_an_end_without_duration_or_with_none_of_the_begin() -> None:
    assert end(duration=0.0).latency_us == 0
    raw = {k: v for k, v in END.items() if k != "duration"}
    got = msgspec.json.decode(trace_event(raw).line, type=CallEnd)
    assert got.latency_us is msgspec.UNSET
    assert got.started_us == got.ts_us


def test_any_text_may_be_a_call_id_and_both_events_get_the_same() -> None:
    assert begin(call_id="run 7").call_id == end(call_id="run 7").call_id
    assert begin(call_id="run 7").call_id != begin(call_id="run 8").call_id
    assert begin(call_id="run 7").attributes["monitor_call_id"] == "run 7"
    assert begin(call_id=CALL.upper()).call_id == CALL
    assert begin(call_id=CALL.replace("-", "")).call_id == CALL


def test_parents_and_traces_where_they_are_told() -> None:
    parent = "00000000-0000-4000-8000-00000000000a"
    assert begin(parent_call_id=parent).parent_span_id == span_id(parent)
    assert begin(trace_id="ab" * 16).trace_id == "ab" * 16
    assert begin(trace_id="not hex").trace_id == CALL.replace("-", "")


def test_payloads_too_large_are_cut_and_say_so() -> None:
    big = {"type": "data", "data": ["x" * MAX_PAYLOAD_BYTES]}
    assert (begin(inputs=big).inputs, begin(inputs=big).cut) == (msgspec.UNSET, ["inputs"])
    assert (end(outputs=big).outputs, end(outputs=big).cut) == (msgspec.UNSET, ["outputs"])


def test_long_texts_are_cut() -> None:
    got = end(module_name="n" * 1000, module_description="d" * 5000, exception="e" * 5000)
    assert (len(got.name), len(got.node)) == (256, 256)
    assert len(got.attributes["module_description"]) == len(got.error_message) == 2000


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"event": "call_middle"}, "event"),
        ({"call_id": None}, "call_id"),
        ({"call_id": ""}, "call_id"),
        ({"call_id": 7}, "call_id"),
        ({"timestamp": None}, "timestamp"),
        ({"timestamp": "now"}, "timestamp"),
        ({"timestamp": True}, "timestamp"),
        ({"timestamp": -1.0}, "timestamp"),
        ({"timestamp": 1e30}, "timestamp"),
        ({"duration": -0.5}, "duration"),
        ({"duration": float("nan")}, "duration"),
    ],
)
def test_what_is_no_trace(changes: dict[str, object], field: str) -> None:
    with pytest.raises(TraceError, match=field):
        trace_event({**END, **changes})


@pytest.mark.parametrize("raw", [None, [], "x", 1])
def test_what_is_no_object(raw: object) -> None:
    with pytest.raises(TraceError):
        trace_event(raw)
