"""Which lines compiled code takes, and which it leaves to the judge."""

from __future__ import annotations

import json

import pytest

import callmeter
from callmeter.schema.events import CallEnd
from callmeter_processors import ordinary
from callmeter_processors.lines import lines_of
from callmeter_processors.ordinary import EveryLine, compiled, new_reader
from support.metering import call_end, line
from support.ordinary_calls import FENCE_US, ORDINARY, needs_compiled, runs_of


@pytest.fixture(autouse=True)
def _compiled():
    needs_compiled()


@pytest.mark.parametrize("fields", ORDINARY)
def test_it_takes_calls_that_say_nothing_unusual(fields):
    (run,) = runs_of(call_end(**fields))
    assert isinstance(run, bytes)
    assert json.loads(run).items() >= call_end(**fields).items()


@pytest.mark.parametrize(
    "fields",
    [
        {"cost_pico": "5"},
        {"inputs": {"text": "hello"}},
        {"unheard": 1},
        {"error_message": 'it said "no"'},
        {"latency_us": 1.0},
        {"user": "x" * 257},
        {"call_id": "018F0000-0000-7000-8000-00000000CA11"},
        {"ts_us": FENCE_US + 1},
        {"started_us": FENCE_US + 1},
        {"tags": {f"tag{number}": "" for number in range(33)}},
    ],
)
def test_it_leaves_to_the_judge_what_says_more(fields):
    odd = line(call_end(**fields))
    assert runs_of(odd) == [[odd + b"\n"]]


USUAL = line(call_end(user="u", tags={"a": "b"}))


@pytest.mark.parametrize(
    ("said", "instead"),
    [
        (b'"user":"u"', b'"user":"u","user":"other"'),
        (b'"tags":{"a":"b"}', b'"tags":{"a":"b","c":"d","a":"e"}'),
        (b'"usage":{"input":10,', b'"usage":{"input":10,"input":11,'),
        (b'"usage":{"input":10,', b'"usage":{"":10,'),
        (b'"usage":{"input":10,', b'"usage":{"%b":10,' % (b"u" * 65)),
        (b'"input":10', b'"input":%d' % (2**40 + 1)),
        (b'"latency_us":1000000', b'"latency_us":0100'),
        (b'"latency_us":1000000', b'"latency_us":'),
        (b'"latency_us":1000000', b'"latency_us":-1'),
        (b'"latency_us":1000000', b'"latency_us":%d' % (2**44 + 1)),
        (b'"latency_us":1000000', b'"latency_us":99999999999999999999999'),
        (b'"operation":"chat"', b'"operation":""'),
        (b'"user":"u"', b'"user":3'),
        (b'"user":"u"', b'"user":"\x1f"'),
        (b'"user":"u"', b'"":"u"'),
        (b'"kind":"call_end"', b'"kind":"call_end" '),
        (b"}}", b"},}"),
        (b"}}", b"}}}"),
        (b"}}", b"}"),
    ],
)
def test_it_leaves_to_the_judge_what_is_not_well_formed(said, instead):
    """Nothing passes that another reader could understand in another way."""
    assert USUAL.count(said) == 1
    assert isinstance(runs_of(USUAL)[0], bytes)
    odd = USUAL.replace(said, instead)
    assert runs_of(odd) == [[odd + b"\n"]]


@pytest.mark.parametrize("missing", ["ts_us", "call_id", "trace_id", "started_us", "status"])
def test_it_leaves_to_the_judge_what_lacks_something(missing):
    odd = line(call_end(**{missing: None}))
    assert runs_of(odd) == [[odd + b"\n"]]


def test_lines_keep_their_places():
    odd, usual = line(call_end(unheard=1)), call_end()
    runs = runs_of(usual, usual, odd, odd, usual, odd)
    sizes = [
        len(run) if isinstance(run, list) else f"{len(run.splitlines())} written" for run in runs
    ]
    assert sizes == ["2 written", 2, "1 written", 1]
    assert runs[1][0] == odd + b"\n"
    many = runs_of(*[odd] * 70)
    assert [len(run) for run in many] == [32, 32, 6]


@pytest.mark.parametrize(
    "value", [b"", b"a", b"a\n", b"\n", b"\n\n", b"a\nb", b"a\n\nb\n", b"\r\n"]
)
def test_lines_are_counted_as_they_are_split(value):
    assert new_reader().count(value) == EveryLine().count(value) == len(lines_of(value))


def test_an_envelope_that_is_no_utf8_is_read_line_by_line():
    """Text outside of ASCII is taken where all of the envelope is good, and judged where not."""
    good, plain = line(call_end(user="é")), line(call_end())
    torn = good.replace("é".encode(), b"\xc3")
    assert [type(run) for run in runs_of(good, plain)] == [bytes]
    assert runs_of(good, torn, plain)[0] == [good + b"\n", torn + b"\n"]


def test_what_the_sdk_writes_of_a_call_is_ordinary(tmp_path):
    """Else nothing would be gained."""
    client = callmeter.Client(callmeter.Settings(url=f"jsonl:{tmp_path}/events.jsonl"))
    with client.generation(
        "answer", model="gpt-4o-mini", provider="openai", temperature=0.7, user="u", tags={"a": "b"}
    ) as call:
        call.usage(input=512, output=128, cache_read=3)
        call.set(finish_reason="stop", response_model="gpt-4o-mini-2024-07-18")
        with client.generation("inner", model="gpt-4o-mini"):
            pass
    client.close()
    ends = [
        each
        for each in (tmp_path / "events.jsonl").read_bytes().splitlines()
        if b'"call_end"' in each
    ]
    assert len(ends) == 2
    (run,) = runs_of(*ends, fence_us=2**62)
    assert isinstance(run, bytes)


def test_every_field_of_a_call_has_a_reader_or_a_reason():
    """A new field is either in the table or known to be the judge's."""
    names = {name.decode() for name, *_ in ordinary._fields()}
    assert names | ordinary._JUDGED == set(CallEnd.__struct_fields__)
    assert not names & ordinary._JUDGED


def test_without_compiled_code_the_judge_sees_every_line(monkeypatch):
    monkeypatch.setattr(ordinary, "_COMPILED", False)
    assert not compiled()
    lines = [line(call_end())] * 40
    runs = runs_of(*lines, reader=new_reader())
    assert [len(run) for run in runs] == [32, 8]
    assert b"".join(b"".join(run) for run in runs) == b"".join(each + b"\n" for each in lines)
