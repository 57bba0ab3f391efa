"""Lines that pass, how they are encoded anew, and the reason of each that does not."""

import json
import math
import struct

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from callmeter.schema.metered import Refused
from callmeter_processors.limits import MeterLimits
from callmeter_processors.lines import judge_lines
from support.metering import NOW_US, call_end, line

LIMITS = MeterLimits()
ID = "018f0000-0000-7000-8000-00000000ca11"
TRACE = "0af7651916cd43dd8448eb211c80319c"


def judged(text):
    lines = [text if isinstance(text, bytes) else line(text)]
    (item,), refused = judge_lines(lines, NOW_US, LIMITS)
    assert refused == [item] * isinstance(item, Refused)
    return item


def again(text):
    """The line as it leaves the meter, read by the standard library."""
    item = judged(text)
    assert not isinstance(item, Refused), item
    return json.loads(msgspec.json.encode(item))


def event(kind, **fields):
    return {"kind": kind, "ts_us": NOW_US, **fields}


REFUSED = [
    (b"", "bad_json", ""),
    (b"nonsense", "bad_json", ""),
    (b'{"kind":"metric"', "bad_json", ""),
    (b'{"kind":"metric","ts_us":1,"name":"a","value":NaN}', "bad_json", ""),
    (b'{"kind":"metric","ts_us":1,"name":"\xff","value":1}', "bad_json", "utf-8"),
    (b'{"kind":"metric","ts_us":1,"name":"a","value":1} {}', "bad_json", ""),
    (b'\xef\xbb\xbf{"kind":"metric"}', "bad_json", ""),
    (b'{"kind":"metric","x":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "bad_json", ""),
    (b'["kind"]', "bad_value", "object"),
    (b"{}", "missing_field", "`kind`"),
    ({"kind": "nonsense"}, "unknown_kind", "nonsense"),
    ({"kind": 3}, "unknown_kind", "kind"),
    (event("metric", name="a"), "missing_field", "`value`"),
    (event("metric", value=1.0), "missing_field", "`name`"),
    (call_end(call_id=None), "missing_field", "`call_id`"),
    (call_end(started_us=None), "missing_field", "`started_us`"),
    (event("metric", name="a", value="1"), "bad_value", "'value'"),
    (event("metric", name="", value=1), "bad_value", "'name'"),
    (event("metric", name="a" * 257, value=1), "bad_value", "'name'"),
    (b'{"kind":"metric","ts_us":1,"name":"a","value":1e400}', "bad_value", "'value'"),
    (event("metric", name="a", value=1, labels={"a": 1}), "bad_value", "labels"),
    (event("metric", name="a", value=1, step=1.5), "bad_value", "'step'"),
    ({"kind": "heartbeat", "ts_us": -1, "open": 0}, "bad_value", "'ts_us'"),
    ({"kind": "heartbeat", "ts_us": 10**16, "open": 0}, "bad_value", "'ts_us'"),
    ({"kind": "heartbeat", "ts_us": 1.0, "open": 0}, "bad_value", "'ts_us'"),
    (event("heartbeat", open=True), "bad_value", "'open'"),
    (event("heartbeat", open=1, open_long=["x" * 36]), "bad_value", "'open_long'"),
    (call_end(call_id="x"), "bad_value", "'call_id'"),
    (call_end(call_id=ID.replace("0", "g", 1)), "bad_value", "'call_id'"),
    (call_end(call_id=ID.upper()), "bad_value", "'call_id'"),
    (call_end(call_id=ID[1:9] + "0" + ID[9:]), "bad_value", "'call_id'"),
    (call_end(call_id="é" * 36), "bad_value", "'call_id'"),
    (call_end(trace_id="-" * 32), "bad_value", "'trace_id'"),
    (call_end(trace_id=TRACE.upper()), "bad_value", "'trace_id'"),
    (call_end(parent_span_id="0123456789abcdeg"), "bad_value", "'parent_span_id'"),
    (call_end(usage={"input": -1}), "bad_value", "usage"),
    (call_end(usage={"input": 1.5}), "bad_value", "usage"),
    (call_end(usage={"input": 2**40 + 1}), "bad_value", "usage"),
    (call_end(usage={"u" * 65: 1}), "bad_value", "usage"),
    (call_end(usage={f"unit-{i}": 1 for i in range(65)}), "bad_value", "usage"),
    (call_end(latency_us=2**44 + 1), "bad_value", "'latency_us'"),
    (call_end(latency_us=-1), "bad_value", "'latency_us'"),
    (call_end(attempts=0), "bad_value", "'attempts'"),
    (call_end(cost_pico=5), "bad_value", "'cost_pico'"),
    (call_end(cost_pico="5.0"), "bad_value", "'cost_pico'"),
    (call_end(cost_pico="1e3"), "bad_value", "'cost_pico'"),
    (call_end(cost_pico="٣"), "bad_value", "'cost_pico'"),
    (call_end(cost_pico="9" * 25), "bad_value", "'cost_pico'"),
    (call_end(operation="execute_tool", cost_pico="5"), "bad_value", "only model operations"),
    (event("cost", started_us=1, cost_pico="", source="bill"), "bad_value", "'cost_pico'"),
    (event("cost", started_us=1, cost_pico="+1", source="bill"), "bad_value", "'cost_pico'"),
    (call_end(ts_us=NOW_US + 600_000_001), "future", "'ts_us'"),
    (call_end(started_us=NOW_US + 600_000_001), "future", "'started_us'"),
    (
        event("cost", started_us=NOW_US + 600_000_001, cost_pico="1", source="bill"),
        "future",
        "'started_us'",
    ),
    (b'{"kind":"annotation","ts_us":1,"text":"a","metadata":1e999}', "bad_value", "'metadata'"),
    (b'{"kind":"annotation","ts_us":1,"text":"a","metadata":"\xff"}', "bad_value", "'metadata'"),
    (
        b'{"kind":"annotation","ts_us":1,"text":"a","metadata":' + b"[" * 600 + b"]" * 600 + b"}",
        "bad_value",
        "'metadata'",
    ),
    (
        event("input_error", file="trace.csv", line_number=17, detail="no such column"),
        "bad_input_line",
        "trace.csv:17: no such column",
    ),
]


@pytest.mark.parametrize(("text", "reason", "detail"), REFUSED)
def test_a_refused_line_says_why_and_names_the_field(text, reason, detail):
    item = judged(text)
    assert isinstance(item, Refused)
    assert item.reason == reason
    assert detail in item.detail
    assert len(item.detail) <= 300


def test_the_dead_letter_keeps_the_beginning_of_the_line():
    assert judged(b"\xff" + b"x" * 5000).line == "�" + "x" * 1999
    assert judged("🦊".encode() * 3000).line == "🦊" * 2000


def test_the_dead_letter_of_an_input_line_is_the_line_of_the_file():
    item = judged(event("input_error", file="a", line_number=1, detail="d", line="1;2;x"))
    assert item.line == "1;2;x"


ACCEPTED = [
    call_end(),
    call_end(usage={}),
    call_end(operation="execute_tool", usage=None),
    call_end(cost_pico="-5"),
    call_end(ts_us=NOW_US + 600_000_000, started_us=NOW_US + 600_000_000),
    call_end(inputs=[{"role": "user", "content": "line\u2028separator \u0000"}], outputs=None),
    {
        "kind": "call_begin",
        "ts_us": NOW_US,
        "call_id": ID,
        "trace_id": TRACE,
        "started_us": 0,
        "operation": "chat",
        "estimate_pico": "12",
        "inputs": {"a": 1},
    },
    event("cost", started_us=NOW_US, cost_pico="-1", source="bill", call_id=ID),
    event("metric", name="loss", value=0.5, step=-3, labels={"fold": "1"}),
    event("annotation", text="", metadata={"a": [None, True]}, call_id=ID),
    event("experiment", slug="run-1", status="running", meta={"lr": 0.1}),
    event("heartbeat", open=2, open_long=[ID]),
]


@pytest.mark.parametrize("text", ACCEPTED)
def test_what_was_understood_is_what_is_written(text):
    assert again(text) == text


def test_unknown_fields_and_duplicate_keys_end_at_the_judge():
    text = line(call_end(usage=None))[:-1]
    text += b',"usage":{"input":1,"input":2},"status":"error","secret":"\xff","usage":{"input":3}}'
    out = again(text)
    assert out["usage"] == {"input": 3}
    assert out["status"] == "error"
    assert "secret" not in out


def test_a_cost_source_without_a_cost_is_dropped():
    out = again(call_end(cost_source="provider", price_version="v0"))
    assert "cost_source" not in out
    assert "price_version" not in out


def test_money_is_canonical():
    assert again(call_end(cost_pico="-0"))["cost_pico"] == "0"


def test_free_json_is_written_anew():
    text = b'{"kind":"annotation","ts_us":1,"text":"a","metadata": {"a": 1,\t"a" : 2, "b":1E2} }'
    assert again(text)["metadata"] == {"a": 2, "b": 100.0}
    assert b'"metadata":{"a":2,"b":100.0}' in msgspec.json.encode(judged(text))


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_keeps_its_double(value):
    out = again(event("metric", name="a", value=value))["value"]
    assert struct.pack("<d", out) == struct.pack("<d", value)
    assert math.copysign(1, out) == math.copysign(1, value)


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=300))
def test_any_text_stays_on_its_line(text):
    encoded = msgspec.json.encode(judged(event("annotation", text=text, metadata=text)))
    assert b"\n" not in encoded
    assert json.loads(encoded)["text"] == json.loads(encoded)["metadata"] == text


def test_a_bad_id_does_not_touch_its_neighbours():
    texts = [line(call_end(name=str(i))) for i in range(5)]
    texts[2] = line(call_end(trace_id="z" * 32))
    items, refused = judge_lines(texts, NOW_US, LIMITS)
    assert refused == [items[2]]
    assert [isinstance(item, Refused) for item in items] == [False, False, True, False, False]


def test_shifted_ids_of_neighbours_do_not_mend_each_other():
    """Ids are checked over the whole envelope at once: none may lend a character to the next."""
    first, second = ID[:35] + "-", "-" + ID[1:]
    lines = [line(call_end(call_id=first)), line(call_end(call_id=second))]
    items, refused = judge_lines(lines, NOW_US, LIMITS)
    assert items == refused
    assert all(isinstance(item, Refused) for item in items)
