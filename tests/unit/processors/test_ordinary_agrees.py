"""What is made of lines that compiled code takes is what the judge and the fold make of them."""

from __future__ import annotations

import json
import random
from fractions import Fraction

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callmeter.pricing import PriceBook, Pricer
from callmeter.pricing.book import OWN, Entry, Match, Period, Rate
from callmeter.schema.budgets import Budget, Slo, next_version
from callmeter.schema.events import Event
from callmeter_processors.meter import PartitionMeter
from callmeter_processors.ordinary import EveryLine, new_reader
from support.metering import LOG, NOW_US, call_end, envelope, line, read, record
from support.ordinary_calls import BOOK, FENCE_US, ORDINARY, needs_compiled

_event = msgspec.json.Decoder(Event)


@pytest.fixture(autouse=True)
def _compiled():
    needs_compiled()


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


@pytest.mark.parametrize("watched", [False, True])
@pytest.mark.parametrize("fields", ORDINARY)
def test_what_it_takes_is_counted_as_the_judge_and_the_fold_do(fields, watched):
    calls = [call_end(**fields), call_end(**fields, phase="p"), call_end(), call_end(**fields)]
    values = [envelope(calls), envelope(calls, seq=1)]
    quick = outcome(values, new_reader(), watched=watched)
    assert quick == outcome(values, EveryLine(), watched=watched)


def test_no_usage_and_none_at_all_are_two_things():
    """An empty map is known to be nothing; without one it is not known."""
    lines = [call_end(usage={}), call_end(usage=None), call_end(usage={}), call_end(usage=None)]
    meter = PartitionMeter(LOG, 0, Pricer(BOOK))
    meter.process(record(envelope(lines)))
    (_, sums) = read(meter.checkpoint().outputs)
    assert [(each["calls"], each["usage_unknown"]) for each in sums.lines] == [(4, 2)]


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
