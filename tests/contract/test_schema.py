"""The wire contract: golden examples, generated schemas, compatibility, topics."""

import copy
import json
from pathlib import Path

import jsonschema
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from callmeter.log.partitioner import partition_for
from callmeter.schema import jsonschema as generation
from callmeter.schema.envelope import HEADER_PREFIX, HeaderError, decode_header, split_envelopes
from callmeter.schema.events import KINDS
from callmeter.schema.metered import (
    Delta,
    DeltasHeader,
    MeteredHeader,
    Refused,
    read_header,
)
from callmeter.schema.reasons import RefusedReason
from callmeter.schema.topics import BY_NAME, TOPICS
from callmeter_processors.judge import open_envelope
from callmeter_processors.limits import MeterLimits
from callmeter_processors.lines import judge_lines
from callmeter_processors.meter import PartitionMeter
from callmeter_processors.ordinary import EveryLine, new_reader
from support.metering import LOG, TablePricer, record

GOLDEN = Path(__file__).parents[1] / "golden"
NOW_US = 1_727_900_000_000_000
SCHEMAS = generation.read_checked_in()


def read_lines(path):
    return path.read_bytes().splitlines()


def valid(name, value):
    return jsonschema.Draft202012Validator(SCHEMAS[name]).is_valid(value)


def judged(text):
    return judge_lines([text], NOW_US, MeterLimits()).events[0]


# golden examples

ACCEPTED = [
    pytest.param(kind, text, id=f"{kind}-{i}")
    for kind in KINDS
    for i, text in enumerate(read_lines(GOLDEN / "events" / f"{kind}.jsonl"))
]
REFUSED = [json.loads(text) for text in read_lines(GOLDEN / "refused.jsonl")]


@pytest.mark.parametrize(("kind", "text"), ACCEPTED)
def test_an_accepted_example_fits_its_schema_and_passes_unchanged(kind, text):
    value = json.loads(text)
    assert text.startswith(b'{"kind":"%s"' % kind.encode())
    jsonschema.validate(value, SCHEMAS[kind])
    event = judged(text)
    if kind == "input_error":
        assert event.reason == "bad_input_line"
    else:
        assert json.loads(msgspec.json.encode(event)) == value


@pytest.mark.parametrize("kind", KINDS)
def test_the_examples_of_a_kind_show_its_fields(kind):
    """Every field stands in an example, and the first example has the required ones only."""
    fields = msgspec.structs.fields(KINDS[kind])
    first, *_ = examples = [json.loads(x) for x in read_lines(GOLDEN / "events" / f"{kind}.jsonl")]
    shown = set().union(*examples) - {"kind"}
    meter_fills_in = {"price_version"} if kind == "call_end" else set()
    assert shown | meter_fills_in == {field.encode_name for field in fields}
    if kind != "input_error":
        assert set(first) - {"kind"} == {field.encode_name for field in fields if field.required}


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: f"{case['reason']}-{case['names']}")
def test_a_refused_example_is_refused_for_its_reason(case):
    refused = judged(case["line"].encode())
    assert isinstance(refused, Refused)
    assert refused.reason == case["reason"]
    assert case["names"] in refused.detail
    assert refused.reason in set(RefusedReason)
    if case["schema"] and refused.reason not in ("bad_json", "unknown_kind"):
        value = json.loads(case["line"], parse_float=float)
        kind = value.get("kind", "call_end")
        bare_infinity = case["line"].endswith("1e400}")
        assert valid(kind, value) is bare_infinity


def golden_metered(reader):
    value = (GOLDEN / "envelope.jsonl").read_bytes()
    (one,) = split_envelopes(value)
    assert one == value
    assert value.startswith(HEADER_PREFIX)
    header = decode_header(value.split(b"\n")[0])
    meter = PartitionMeter(LOG, 3, TablePricer(), reader=reader)
    key = header.source.encode()
    meter.process(record(value, offset=17, partition=3, key=key, timestamp_us=NOW_US))
    return b"".join(output.value for output in meter.checkpoint().outputs)


def test_the_golden_envelope_is_metered_as_it_ever_was():
    assert golden_metered(EveryLine()) == (GOLDEN / "metered.jsonl").read_bytes()


def test_compiled_code_meters_the_golden_envelope_to_the_same():
    """Deltas have no order, and a line's fields have none."""
    lines = golden_metered(new_reader()).splitlines()
    expected = (GOLDEN / "metered.jsonl").read_bytes().splitlines()
    at = next(i for i, text in enumerate(expected) if b'"type":"deltas"' in text)
    assert [json.loads(text) for text in lines[: at + 1]] == [
        json.loads(text) for text in expected[: at + 1]
    ]
    assert sorted(lines[at:]) == sorted(expected[at:])


def test_the_golden_metered_records_fit_their_schemas():
    lines = read_lines(GOLDEN / "metered.jsonl")
    names = {"envelope": "metered_header", "deltas": "deltas_header"}
    seen = set()
    for text in lines:
        value = json.loads(text)
        name = names.get(value.get("type", ""), value.get("kind", "delta"))
        jsonschema.validate(value, SCHEMAS[name])
        seen.add(name)
    assert seen >= {"metered_header", "deltas_header", "delta", "refused", "call_end", "cost"}


def test_metered_headers_are_read_back():
    text = (GOLDEN / "metered.jsonl").read_bytes()
    at = text.index(b'{"v":1,"type":"deltas"')
    first, second = read_header(text), read_header(text[at:])
    assert isinstance(first, MeteredHeader)
    assert isinstance(second, DeltasHeader)
    assert (first.partition, first.offset, first.verdict) == (3, 17, "accepted")
    assert (second.first, second.last, second.part, second.parts) == (17, 17, 0, 1)
    delta = msgspec.json.decode(text[at:].split(b"\n")[1], type=Delta)
    assert (delta.project, delta.calls) == ("support", 1)


@pytest.mark.parametrize("text", [b"", b"{}", b'{"v":1,"type":"other"}', b"\xff\n{}"])
def test_what_is_no_metered_record_is_said_so(text):
    with pytest.raises(msgspec.DecodeError):
        read_header(text)


# generated schemas


def test_the_schemas_checked_in_are_what_the_record_types_say():
    assert generation.generate() == SCHEMAS, "run: python -m callmeter.schema.jsonschema"


def test_every_kind_has_a_schema_of_the_2020_12_dialect():
    assert set(KINDS) < set(SCHEMAS)
    for schema in SCHEMAS.values():
        jsonschema.Draft202012Validator.check_schema(schema)


def test_schemas_allow_fields_they_do_not_know():
    for kind in KINDS:
        value = json.loads(read_lines(GOLDEN / "events" / f"{kind}.jsonl")[0])
        assert valid(kind, value | {"a_field_of_tomorrow": [1]})


HEADER = {
    "v": 1,
    "source": "01920f3e-7a10-7c44-9d21-3b5e8f6a9c01",
    "seq": 0,
    "n": 1,
    "sent_us": NOW_US,
    "project": "shop",
}
ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 700),
    st.integers(2**63 - 1, 2**64),
    st.floats(allow_nan=False, allow_infinity=False).filter(lambda x: not x.is_integer()),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=40),
    st.just("x" * 257),
    st.just("01920F3E-7A10-7C44-9D21-3B5E8F6A9C01"),
    st.dictionaries(st.sampled_from(("a", "b" * 65)), st.one_of(st.integers(-1, 3), st.text())),
    st.lists(st.integers(), max_size=2),
)


@given(st.sampled_from([*HEADER, "environment", "service", "accepted", "dropped", "last"]), ODD)
def test_the_headers_schema_its_reader_and_the_judge_agree(name, value):
    # The reader leaves the format's version and the limit of events to the judge.
    if name == "v" and value != 1:
        return
    if name == "n" and isinstance(value, int) and value > 500:
        return
    header = HEADER | {name: value}
    text = json.dumps(header).encode()
    opened = open_envelope(text, str(header["source"]).encode())
    assert (opened.refusal is None) is valid("envelope_header", header)
    if valid("envelope_header", header):
        assert getattr(decode_header(text), name) == getattr(opened.header, name) == value
    else:
        with pytest.raises(HeaderError, match=repr(name)):
            decode_header(text)


# compatibility


def fields_of(schema):
    """Every object with fields in a schema, nested definitions included."""
    return [schema, *schema.get("$defs", {}).values()]


def changed(name, change):
    """The lines that a change to a copy of a checked-in schema is answered with."""
    new = copy.deepcopy(SCHEMAS[name])
    change(new)
    return generation.incompatibilities(SCHEMAS[name], new)


@pytest.mark.parametrize("name", SCHEMAS)
def test_nothing_is_incompatible_with_itself_or_with_one_more_field(name):
    def add(schema):
        schema["properties"]["more"] = {"type": "string", "default": ""}

    assert changed(name, lambda schema: None) == []
    assert changed(name, add) == []


@pytest.mark.parametrize(
    ("name", "field"), [(name, field) for name in SCHEMAS for field in SCHEMAS[name]["properties"]]
)
def test_an_incompatible_change_of_any_field_is_found(name, field):
    was = SCHEMAS[name]["properties"][field]

    def remove(schema):
        del schema["properties"][field]

    def retype(schema):
        schema["properties"][field] = {"type": "null"}

    def require(schema):
        schema["required"] = sorted({*schema.get("required", ()), field})

    assert f"$.{field}: removed" in changed(name, remove)
    if was:  # an empty schema takes anything, so null only narrows it
        assert changed(name, retype)
    already = field in SCHEMAS[name].get("required", ())
    assert (f"$.{field}: newly required" in changed(name, require)) is not already
    for keyword in set(was) & {"maximum", "maxLength", "maxProperties"}:
        assert changed(name, lambda schema, k=keyword: shift(schema, field, k, -1))
        assert not changed(name, lambda schema, k=keyword: shift(schema, field, k, 1))
    for keyword in set(was) & {"minimum", "minLength"}:
        assert changed(name, lambda schema, k=keyword: shift(schema, field, k, 1))
        assert not changed(name, lambda schema, k=keyword: shift(schema, field, k, -1))


def shift(schema, field, keyword, by):
    schema["properties"][field][keyword] += by


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        ({}, {"type": "string"}, True),
        ({"type": "string"}, {}, False),
        ({"type": "string"}, {"type": "string", "maxLength": 9}, True),
        ({"type": "string"}, {"type": "string", "pattern": "^a$"}, True),
        ({"type": "string", "pattern": "^a$"}, {"type": "string"}, False),
        ({"enum": ["a"]}, {"enum": ["a", "b"]}, False),
        ({"enum": ["a", "b"]}, {"enum": ["a"]}, True),
        ({"type": "string"}, {"anyOf": [{"type": "string"}, {"type": "null"}]}, False),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, {"type": "string"}, True),
        ({"type": "string", "default": ""}, {"type": "string", "default": "x"}, True),
        (
            {"type": "object", "additionalProperties": {"type": "integer"}},
            {"type": "object", "additionalProperties": {"type": "string"}},
            True,
        ),
        ({"type": "object"}, {"type": "object", "additionalProperties": False}, True),
        ({"type": "array"}, {"type": "array", "items": {"type": "string"}}, True),
    ],
)
def test_what_is_incompatible(old, new, found):
    old, new = ({"type": "object", "properties": {"a": x}} for x in (old, new))
    assert bool(generation.incompatibilities(old, new)) is found


def test_incompatible_schemas_are_not_written(tmp_path, monkeypatch, capsys):
    """The generator itself refuses, so nobody overwrites the promise unawares."""
    monkeypatch.setattr(generation, "GENERATED", tmp_path)
    assert generation.main([]) == 0
    assert generation.main(["--check"]) == 0
    path = tmp_path / "metric.json"
    promised = json.loads(path.read_text())
    promised["properties"]["unit"] = {"type": "string"}
    path.write_text(json.dumps(promised))
    assert generation.main(["--check"]) == 1
    assert generation.main([]) == 1
    assert "metric $.unit: removed" in capsys.readouterr().err
    assert json.loads(path.read_text()) == promised
    assert generation.main(["--break"]) == 0
    assert generation.main(["--check"]) == 0


# topics

DESIGNED = {
    "events": ("delete", 7),
    "metered": ("delete", 7),
    "spend": ("delete", 7),
    "live": ("compact", None),
    "budgets": ("compact", None),
    "budget-status": ("compact", None),
    "alerts": ("delete", 30),
    "prices": ("compact", None),
    "log": ("compact", None),
    "meter-state": ("compact", None),
    "watch-state": ("compact", None),
}


def test_the_registry_is_the_designed_one():
    assert {topic.name for topic in TOPICS} == set(BY_NAME) == set(DESIGNED)
    assert len(TOPICS) == len(DESIGNED)
    for name, (cleanup, days) in DESIGNED.items():
        config = BY_NAME[name].config
        assert config["cleanup.policy"] == cleanup
        retention_ms = config.get("retention.ms")
        assert retention_ms == (None if days is None else str(days * 86_400_000))
        assert all(isinstance(value, str) for value in config.values())


def test_events_are_stamped_by_the_log_and_state_is_kept_small():
    assert BY_NAME["events"].config["message.timestamp.type"] == "LogAppendTime"
    for name in ("meter-state", "watch-state"):
        config = BY_NAME[name].config
        assert config["segment.bytes"] == str(64 * 2**20)
        assert config["segment.ms"] == str(10 * 60_000)
        assert config["min.cleanable.dirty.ratio"] == "0.1"


def test_a_topics_name_carries_its_prefix():
    assert BY_NAME["metered"].full() == "callmeter.metered"
    assert BY_NAME["metered"].full("staging") == "staging.metered"


def test_a_metered_record_fits_its_topic():
    """The largest envelope, all of it control characters, still fits the topic's message limit."""
    limit = int(BY_NAME["metered"].config["max.message.bytes"])
    limits = MeterLimits()
    worst_line = b"\x01" * ((limits.max_bytes - 1000) // limits.max_events - 1)
    head = HEADER | {"n": limits.max_events}
    value = b"\n".join((json.dumps(head).encode(), *[worst_line] * limits.max_events, b""))
    assert limits.max_bytes - 2000 < len(value) <= limits.max_bytes
    meter = PartitionMeter(LOG, 0, TablePricer())
    meter.process(record(value, key=HEADER["source"].encode(), timestamp_us=NOW_US))
    (metered, _) = meter.checkpoint().outputs
    assert read_header(metered.value).refused == limits.max_events
    assert len(metered.value) < limit


def test_the_partition_of_a_source_is_what_java_computes():
    """Reference values of org.apache.kafka.common.utils.Utils.murmur2."""
    assert partition_for(b"21", 2**31) == -973932308 & 0x7FFFFFFF
    assert partition_for(b"foobar", 2**31) == -790332482 & 0x7FFFFFFF
    assert partition_for(b"a-little-bit-long-string", 2**31) == -985981536 & 0x7FFFFFFF
