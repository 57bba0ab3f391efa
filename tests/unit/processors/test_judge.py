"""Envelopes that pass, and the reason of each that does not."""

import json

import pytest

from callmeter_processors.limits import DAY_US, MeterLimits
from callmeter_processors.meter import PartitionMeter
from support.metering import (
    LOG,
    NOW_US,
    TablePricer,
    call_end,
    deltas,
    envelope,
    envelopes,
    record,
    source,
)

KEY = source(1).encode()
NIL = "00000000-0000-0000-0000-000000000000"


def judge(value, *, key=KEY, timestamp_us=NOW_US, limits=None):
    meter = PartitionMeter(LOG, 0, TablePricer(), limits)
    meter.process(record(value, key=key, timestamp_us=timestamp_us))
    checkpoint = meter.checkpoint()
    (metered,) = envelopes(checkpoint.outputs)
    return metered, checkpoint


def header_text(**fields):
    base = {"v": 1, "source": source(1), "seq": 0, "n": 0, "sent_us": NOW_US, "project": "shop"}
    merged = {name: value for name, value in (base | fields).items() if value is not None}
    return json.dumps(merged).encode() + b"\n"


def test_the_metered_header_repeats_the_envelopes():
    value = envelope(
        [call_end(), b"{}"],
        seq=0,
        environment="prod",
        service="api",
        sdk="py/1",
        accepted=7,
        dropped={"queue_full": 3},
        last=True,
    )
    metered, _ = judge(value)
    assert metered.head == {
        "v": 1,
        "type": "envelope",
        "log": LOG,
        "partition": 0,
        "offset": 0,
        "log_ts_us": NOW_US,
        "verdict": "accepted",
        "reason": "",
        "detail": "",
        "source": source(1),
        "seq": 0,
        "n": 2,
        "sent_us": NOW_US,
        "project": "shop",
        "environment": "prod",
        "service": "api",
        "sdk": "py/1",
        "accepted": 7,
        "dropped": {"queue_full": 3},
        "last": True,
        "events": 1,
        "refused": 1,
        "bytes": len(value),
    }
    assert list(metered.head)[:2] == ["v", "type"]


@pytest.mark.parametrize(
    ("value", "timestamp_us", "reason", "detail"),
    [
        pytest.param(b"", NOW_US, "bad_header", "the record is empty", id="empty"),
        pytest.param(None, NOW_US, "bad_header", "the record is empty", id="tombstone"),
        pytest.param(b"\xff\xfe\x00", NOW_US, "bad_header", "not JSON", id="bytes"),
        pytest.param(b"[1]\n", NOW_US, "bad_header", "not an object", id="array"),
        pytest.param(header_text(project=None), NOW_US, "bad_header", "'project'", id="project"),
        pytest.param(header_text(seq=-1), NOW_US, "bad_header", "'seq'", id="negative seq"),
        pytest.param(header_text(seq=True), NOW_US, "bad_header", "'seq'", id="boolean seq"),
        pytest.param(header_text(v=None), NOW_US, "bad_header", "'v'", id="no version"),
        pytest.param(header_text(dropped={"a": -1}), NOW_US, "bad_header", "'dropped'", id="drops"),
        pytest.param(header_text(v=2), NOW_US, "newer_format", "'v' is 2", id="newer"),
        pytest.param(header_text(n=1), NOW_US, "count_mismatch", "'n' is 1, 0 lines", id="n"),
        pytest.param(
            header_text(n=1) + b"{}\n{}\n", NOW_US, "count_mismatch", "2 lines", id="more lines"
        ),
        pytest.param(header_text(n=501), NOW_US, "too_large", "501 events", id="events"),
        pytest.param(
            header_text(n=1) + b" " * (256 * 1024), NOW_US, "too_large", "bytes", id="bytes limit"
        ),
        pytest.param(
            header_text(), NOW_US + 30 * DAY_US + 1, "too_late", "before it reached", id="late"
        ),
        pytest.param(
            header_text(), NOW_US - 600_000_001, "future_envelope", "600 s ahead", id="future"
        ),
    ],
)
def test_a_refused_envelope_says_why(value, timestamp_us, reason, detail):
    metered, checkpoint = judge(value, timestamp_us=timestamp_us)
    head, lines = metered
    assert (head["verdict"], head["reason"]) == ("refused", reason)
    assert detail in head["detail"]
    assert (head["events"], head["refused"]) == (0, 0)
    assert len(lines) == 1
    assert lines[0]["kind"] == "refused"
    assert (lines[0]["reason"], lines[0]["detail"]) == (reason, head["detail"])
    text = (value or b"").decode(errors="replace")
    assert lines[0]["line"] == text[:2000]
    (told,) = deltas(checkpoint.outputs)
    controls = told.head["controls"]
    assert controls["refused_envelopes"] == 1
    assert controls["envelopes"] == 1


@pytest.mark.parametrize(
    ("timestamp_us", "value"),
    [
        pytest.param(NOW_US + 30 * DAY_US, header_text(), id="sent exactly the horizon ago"),
        pytest.param(NOW_US - 600_000_000, header_text(), id="exactly the limit ahead"),
        pytest.param(NOW_US, header_text(), id="no events"),
        pytest.param(NOW_US, header_text()[:-1], id="no newline at the end"),
        pytest.param(NOW_US, header_text(extra=[1, {"a": None}]), id="unknown header field"),
    ],
)
def test_at_the_limits_an_envelope_passes(timestamp_us, value):
    metered, _ = judge(value, timestamp_us=timestamp_us)
    assert metered.head["verdict"] == "accepted"


def test_five_hundred_events_and_256_kib_pass():
    filler = call_end(outputs="x")
    lines = [filler] * 500
    room = 256 * 1024 - len(envelope(lines))
    padded = [call_end(outputs="x" * (1 + room)), *lines[1:]]
    value = envelope(padded)
    assert len(value) == 256 * 1024
    metered, _ = judge(value)
    assert (metered.head["verdict"], metered.head["events"]) == ("accepted", 500)


def test_limits_are_settings():
    limits = MeterLimits(max_events=1, dead_letter_chars=5)
    metered, _ = judge(envelope([call_end()] * 2), limits=limits)
    assert metered.head["reason"] == "too_large"
    assert metered.lines[0]["line"] == '{"v":'


@pytest.mark.parametrize("key", [None, b"", source(2).encode()])
def test_a_record_whose_key_is_not_its_source_is_refused_and_takes_no_seq(key):
    metered, checkpoint = judge(envelope([call_end()]), key=key)
    assert metered.head["reason"] == "bad_header"
    assert "key" in metered.head["detail"]
    assert not checkpoint.rows


def test_a_header_without_project_takes_its_seq():
    meter = PartitionMeter(LOG, 0, TablePricer())
    meter.process(record(header_text(project=None), offset=0))
    meter.process(record(envelope([call_end()], seq=1), offset=1))
    meter.process(record(envelope([call_end()], seq=0), offset=2))
    checkpoint = meter.checkpoint()
    verdicts = [each.head["verdict"] for each in envelopes(checkpoint.outputs)]
    assert verdicts == ["refused", "accepted", "duplicate"]
    (row,) = checkpoint.rows.values()
    assert json.loads(row)["next"] == 2
    assert "gaps" not in json.loads(row)


def test_a_bad_header_is_read_as_far_as_it_goes():
    metered, _ = judge(header_text(project=7, service="api", n="x", environment="e" * 257))
    head = metered.head
    assert (head["source"], head["service"], head["sent_us"]) == (source(1), "api", NOW_US)
    assert (head["project"], head["n"], head["environment"]) == ("", 0, "")


@pytest.mark.parametrize(
    "text",
    [
        source(1).upper(),
        source(1).replace("-", " "),
        source(1).replace("-", ""),
        "018f00000000-7000-8000-0000-00000000001",
        source(1) + "\n",
    ],
)
def test_a_source_that_is_no_lower_case_uuid_is_refused(text):
    metered, _ = judge(header_text(source=text), key=text.encode())
    assert metered.head["reason"] == "bad_header"
    assert "'source'" in metered.head["detail"]
    assert metered.head["source"] == NIL


def test_a_header_of_any_size_stays_small_behind_the_meter():
    drops = {f"reason-{i}": i for i in range(200_000)}
    metered, checkpoint = judge(header_text(dropped=drops))
    assert metered.head["dropped"] == {}
    assert len(checkpoint.outputs[0].value) < 10_000
