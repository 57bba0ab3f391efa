"""Ordinary lines read by compiled code: what is made of them is what the judge makes."""

from __future__ import annotations

import json
import os
import random
from fractions import Fraction

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callmeter.pricing import PriceBook, Pricer
from callmeter.pricing.book import OWN, Entry, Match, Period, Provider, Rate
from callmeter.schema.budgets import Budget, Slo, next_version
from callmeter.schema.events import CallEnd, Event
from callmeter_processors import ordinary
from callmeter_processors.fold import Fold
from callmeter_processors.judge import open_envelope
from callmeter_processors.limits import MeterLimits
from callmeter_processors.lines import lines_of
from callmeter_processors.meter import PartitionMeter
from callmeter_processors.ordinary import EveryLine, compiled, new_reader
from support.metering import LOG, NOW_US, call_end, envelope, line, read, record, source

_event = msgspec.json.Decoder(Event)
BOOK = PriceBook(
    "v1",
    (Provider("openai"),),
    (
        Entry(
            "openai",
            "gpt-4o-mini",
            Match("equals", "gpt-4o-mini"),
            (Period({"input": Rate(Fraction(150_000)), "output": Rate(Fraction(600_001, 3))}),),
            OWN,
        ),
    ),
)
FENCE_US = NOW_US + MeterLimits().future_us


@pytest.fixture(autouse=True)
def _compiled():
    if compiled():
        return
    text = "nothing was compiled: a C compiler is missing, see CONTRIBUTING.md"
    if os.environ.get("CALLMETER_COMPILED") == "require":
        pytest.fail(f"{text} (CALLMETER_COMPILED=require)", pytrace=False)
    pytest.skip(text)


def runs_of(*lines, reader=None, fence_us=FENCE_US):
    """What a reader takes of an envelope, and what it leaves."""
    value = envelope(lines)
    header = open_envelope(value, source(1).encode()).header
    return Fold(Pricer(BOOK)).read(reader or new_reader(), header, value, fence_us)


def budgets():
    """For each call: by user, by a tag, and how long it took."""
    slo = Slo(measure="latency", max_us=1)
    made = [
        Budget(id="user", per="user", limit_pico="1000000"),
        Budget(id="team", scope={"tag:team": ["a*"]}, limit_tokens=10**6),
        Budget(id="slow", per="user", slo=slo),
    ]
    return [next_version(None, each, 1) for each in made]


def plain(text):
    """JSON whose names are in order."""
    return json.dumps(json.loads(text), sort_keys=True)


def understood(event):
    """A metered line as its readers see it: without the defaults that it may name."""
    return event if event["kind"] == "refused" else _event.decode(line(event))


def outcome(values, reader, *, watched):
    """All that a meter makes of some envelopes, free of what may differ: order and defaults."""
    meter = PartitionMeter(LOG, 0, Pricer(BOOK), reader=reader)
    meter.configure(budgets() if watched else [], 0, 4)
    for offset, value in enumerate(values):
        meter.process(record(value, offset=offset))
    meter.tick(NOW_US + 1)
    done = meter.checkpoint()
    metered = []
    for head, lines in read(done.outputs):
        if head["type"] == "envelope":
            metered.append((head, [understood(each) for each in lines]))
        else:
            metered.append((head, sorted(plain(line(each)) for each in lines)))
    others = sorted(
        (out.topic, out.key, out.partition, sorted(map(plain, out.value.splitlines())))
        for out in done.outputs
        if out.topic != "metered"
    )
    return metered, others, dict(done.rows), dict(done.counts)


texts = st.one_of(
    st.sampled_from(
        ("", "a", "openai", "Zürich", "東京", 'quo"te', "back\\slash", "tab\there", "\x7f")
    ),
    st.text(max_size=4),
    st.sampled_from(("x" * 256, "x" * 257, "é" * 128, "é" * 129, "é" * 257)),
)
numbers = st.one_of(
    st.integers(0, 3),
    st.sampled_from((2**40, 2**40 + 1, 2**44, 2**44 + 1, 10**18, 10**19, -1, 1.5, True, "7")),
)
some_text = st.dictionaries(texts, texts, max_size=3)
calls = st.fixed_dictionaries(
    {},
    optional={
        "ts_us": st.sampled_from((NOW_US, FENCE_US, FENCE_US + 1, -1, 4_102_444_800_000_001)),
        "started_us": st.sampled_from((0, NOW_US - 60_000_000, FENCE_US, FENCE_US + 1)),
        "call_id": st.sampled_from(("018f0000-0000-7000-8000-00000000CA11", "x" * 36, "", None)),
        "trace_id": st.sampled_from(("0" * 32, "g" * 32, "0" * 31, None)),
        "parent_span_id": st.sampled_from(("0123456789abcdef", "0123456789ABCDEF", "0")),
        "operation": st.sampled_from(("chat", "execute_tool", "", "x" * 256)),
        "status": st.sampled_from(("ok", "error", "")),
        "name": texts,
        "provider": st.sampled_from(("openai", "", "acme")),
        "model": st.sampled_from(("gpt-4o-mini", "unheard-of", "")),
        "response_model": st.sampled_from(("gpt-4o-mini", "other")),
        "phase": texts,
        "user": texts,
        "session": texts,
        "tags": st.one_of(some_text, st.just({"team": "ab"}), st.just({"team": 3})),
        "attributes": some_text,
        "service_tier": st.sampled_from(("", "batch", "priority")),
        "error_type": texts,
        "error_message": st.one_of(texts, st.just("x" * 2000)),
        "http_status": numbers,
        "attempts": numbers,
        "latency_us": numbers,
        "ttft_us": numbers,
        "usage": st.one_of(
            st.none(),
            st.dictionaries(st.sampled_from(("input", "output", "u" * 64)), st.integers(0, 2**40)),
            st.dictionaries(st.one_of(texts, st.just("u" * 65)), numbers, max_size=3),
            st.just({f"unit{i}": i for i in range(65)}),
        ),
        "cost_pico": st.sampled_from(("5", "-0", "x")),
        "cost_source": st.sampled_from(("mine", "")),
        "inputs": st.sampled_from(("text", {"a": [1]})),
        "cut": st.just(["inputs"]),
        "unheard": st.just(1),
    },
)


#: Calls that say nothing unusual.
ORDINARY = [
    {},
    {"name": "Zürich 東京", "tags": {"team": "größe"}, "user": "é" * 128},
    {"usage": {}},
    {"usage": None},
    {"operation": "execute_tool", "usage": None},
    {"model": "unheard-of"},
    {"response_model": "gpt-4o-mini-2024-07-18", "finish_reason": "stop", "http_status": 200},
    {"service_tier": "batch"},
    {"attempts": 3},
    {"status": "error", "error_type": "TimeoutError", "error_message": "it took " * 500},
    {"latency_us": None, "ttft_us": 0, "parent_span_id": "0" * 16},
    {"attributes": {"temperature": "0.7"}, "tags": {}},
]


@st.composite
def lines_of_calls(draw):
    """A call's line; now and then with its fields in another order, spaced, or torn."""
    event = call_end(**draw(st.one_of(st.sampled_from(ORDINARY), calls)))
    how = draw(st.sampled_from(("", "", "", "shuffled", "spaced", "twice", "escaped", "torn")))
    if how == "shuffled":
        kind, *rest = event.items()
        random.Random(draw(st.integers())).shuffle(rest)
        event = dict([kind, *rest])
    text = line(event)
    if how == "spaced":
        return json.dumps(event).encode()
    if how == "escaped":
        return json.dumps(event, separators=(",", ":")).encode()
    if how == "twice":
        again = draw(st.sampled_from((b'"user":"other"', b'"latency_us":7', b'"kind":"cost"')))
        return text[:-1] + b"," + again + b"}"
    if how == "torn":
        at, end = sorted((draw(st.integers(0, len(text))), draw(st.integers(0, len(text)))))
        instead = draw(st.binary(max_size=3)).replace(b"\n", b"")
        return text[:at] + instead + text[max(at, min(end, at + 3)) :]
    return text


others = st.sampled_from(
    (
        b'{"kind":"metric","ts_us":1,"name":"loss","value":0.5}',
        b'{"kind":"heartbeat","ts_us":%d,"open":1}' % NOW_US,
        line(
            {
                "kind": "call_begin",
                "ts_us": NOW_US,
                "call_id": "018f0000-0000-7000-8000-00000000ca11",
                "trace_id": "0" * 32,
                "started_us": NOW_US,
                "operation": "chat",
            }
        ),
        b"nonsense",
        b"",
    )
)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.lists(st.one_of(lines_of_calls(), lines_of_calls(), others), max_size=5), max_size=3
    ),
    st.booleans(),
)
def test_it_makes_what_the_judge_makes(bodies, watched):
    """Lines, sums, spend, alerts, state and counts: of any lines, with budgets and without."""
    values = [envelope(lines, seq=seq) for seq, lines in enumerate(bodies)]
    quick = outcome(values, new_reader(), watched=watched)
    assert quick == outcome(values, EveryLine(), watched=watched)


def test_a_gap_and_open_calls_are_seen_in_what_was_never_decoded():
    """Ends of calls that were told to be open, and of those that may have begun in a gap."""
    begin = call_end() | {"kind": "call_begin"}
    begin = {
        k: begin[k] for k in ("kind", "ts_us", "call_id", "trace_id", "started_us", "operation")
    }
    many = [call_end(call_id=f"018f0000-0000-7000-8000-{number:012x}") for number in range(40)]
    values = [
        envelope([*many, begin, *many], seq=0),
        envelope([*many, call_end()], seq=1),
        envelope(many, seq=5),
        envelope([], seq=6, last=True),
    ]
    quick = outcome(values, new_reader(), watched=False)
    assert quick == outcome(values, EveryLine(), watched=False)
    assert any(b"o:" in key for key in quick[2])


@pytest.mark.parametrize("fields", ORDINARY)
def test_it_takes_calls_that_say_nothing_unusual(fields):
    (run,) = runs_of(call_end(**fields))
    assert isinstance(run, bytes)
    assert json.loads(run).items() >= call_end(**fields).items()


@pytest.mark.parametrize("watched", [False, True])
@pytest.mark.parametrize("fields", ORDINARY)
def test_what_it_takes_is_counted_as_the_judge_and_the_fold_do(fields, watched):
    calls = [call_end(**fields), call_end(**fields, phase="p"), call_end(), call_end(**fields)]
    values = [envelope(calls), envelope(calls, seq=1)]
    quick = outcome(values, new_reader(), watched=watched)
    assert quick == outcome(values, EveryLine(), watched=watched)


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


def test_no_usage_and_none_at_all_are_two_things():
    """An empty map is known to be nothing; without one it is not known."""
    lines = [call_end(usage={}), call_end(usage=None), call_end(usage={}), call_end(usage=None)]
    meter = PartitionMeter(LOG, 0, Pricer(BOOK))
    meter.process(record(envelope(lines)))
    (_, sums) = read(meter.checkpoint().outputs)
    assert [(each["calls"], each["usage_unknown"]) for each in sums.lines] == [(4, 2)]


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
    import callmeter

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


def test_a_cost_of_any_size_is_written_out():
    """Beyond 64 bits as well; sums of money know no size."""
    calls = [call_end(usage={"input": 2**40, "output": count}) for count in (0, 1, 2**40)]
    values = [envelope(calls * 3)]
    quick = outcome(values, new_reader(), watched=False)
    assert quick == outcome(values, EveryLine(), watched=False)
    dear = PriceBook(
        "v1",
        BOOK.providers,
        (
            Entry(
                "openai",
                "m",
                Match("equals", "m"),
                (Period({"input": Rate(Fraction(10**9))}),),
                OWN,
            ),
        ),
    )
    meter = PartitionMeter(LOG, 0, Pricer(dear))
    meter.process(record(envelope([call_end(model="m", usage={"input": 2**40})])))
    (accepted, sums) = read(meter.checkpoint().outputs)
    assert accepted.lines[0]["cost_pico"] == sums.lines[0]["cost_pico"] == str(2**40 * 10**9)


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
