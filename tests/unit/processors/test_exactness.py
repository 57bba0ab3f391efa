"""The same envelopes in any order, over and over, through crashes: the same totals to the pico."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from callmeter.log.partitioner import partition_for
from support.metering import (
    NOW_US,
    CrashingRuntime,
    call_end,
    deltas,
    envelope,
    envelopes,
    line,
    record,
    source,
    totals_of_deltas,
    totals_of_lines,
)

MODELS = ("gpt-4o-mini", "gpt-4o", "unheard-of", "")
OPERATIONS = ("chat", "embeddings", "program", "execute_tool")
#: A total that is the same however the envelopes came, but for when they came.
ACCEPTED = ("events", "refused", "calls", "operations", "failures", "costs", "cost_pico")

calls = st.fixed_dictionaries(
    {},
    optional={
        "started_us": st.one_of(
            st.integers(NOW_US - 3, NOW_US), st.integers(NOW_US - 180_000_000, NOW_US)
        ),
        "model": st.sampled_from(MODELS),
        "operation": st.sampled_from(OPERATIONS),
        "status": st.sampled_from(("ok", "error", "cancelled")),
        "phase": st.sampled_from(("", "inference")),
        "attempts": st.integers(1, 5),
        "latency_us": st.one_of(st.none(), st.integers(0, 2**44)),
        "ttft_us": st.integers(0, 10**7),
        "usage": st.one_of(
            st.none(),
            st.dictionaries(st.sampled_from(("input", "output", "image")), st.integers(0, 2**40)),
        ),
        "service_tier": st.sampled_from(("batch", "priority")),
        "cost_pico": st.integers(-(10**20), 10**24).map(str),
    },
).map(lambda fields: line(call_end(**fields)))

costs = st.builds(
    lambda pico, model, service, started_us: line(
        {
            "kind": "cost",
            "ts_us": NOW_US,
            "started_us": started_us,
            "cost_pico": str(pico),
            "source": "bill",
            "model": model,
            "service": service,
        }
    ),
    st.integers(-(10**24), 10**24),
    st.sampled_from(MODELS),
    st.sampled_from(("", "billing")),
    st.integers(0, NOW_US),
)

bad_lines = st.one_of(
    st.binary(max_size=40).filter(lambda text: b"\n" not in text),
    st.sampled_from((b'{"kind":"nonsense"}', line(call_end(call_id="x")), line(call_end(usage=3)))),
)

bodies = st.lists(st.one_of(calls, calls, costs, bad_lines), max_size=6)


@st.composite
def sent(draw):
    """What sources sent: {(source, seq): bytes}, some of it refused as a whole."""
    made = {}
    for number in range(draw(st.integers(1, 4))):
        last_seq = draw(st.integers(0, 4))
        for seq in range(last_seq + 1):
            made[source(number), seq] = envelope(
                draw(bodies),
                source=source(number),
                seq=seq,
                project=draw(st.sampled_from(("shop", "lab"))),
                environment=draw(st.sampled_from(("", "prod"))),
                sent_us=draw(st.sampled_from((NOW_US, NOW_US, NOW_US + 10**10))),
                last=seq == last_seq and draw(st.booleans()),
            )
    return made


def run(envelopes_by_id, order, partitions, plans):
    """Send the ids in this order over so many partitions, each with its own plan of crashes."""
    logs = [[] for _ in range(partitions)]
    for name, seq in order:
        log = logs[partition_for(name.encode(), partitions)]
        value = envelopes_by_id[name, seq]
        log.append(record(value, offset=len(log), key=name.encode(), timestamp_us=NOW_US))
    outputs = []
    for partition, log in enumerate(logs):
        runtime = CrashingRuntime(partition)
        runtime.run(log, plans(partition))
        spans = [(each.head["first"], each.head["last"]) for each in deltas(runtime.outputs)]
        read = [offset for first, last in spans for offset in range(first, last + 1)]
        assert read == list(range(len(log)))
        assert [each.head["offset"] for each in envelopes(runtime.outputs)] == read
        outputs += runtime.outputs
    return outputs


def plan_of(seed):
    """Crashes and checkpoints at any point, different for each partition."""

    def plan(partition):
        rng = random.Random(f"{seed}:{partition}")
        return rng.choices(("go", "checkpoint", "crash"), (6, 2, 1), k=200)

    return plan


def control_totals(outputs):
    totals = dict.fromkeys(ACCEPTED, 0)
    for each in deltas(outputs):
        for name in ACCEPTED:
            totals[name] += int(each.head.get("controls", {}).get(name, 0))
    return totals


@settings(max_examples=150, deadline=None)
@given(sent(), st.data())
def test_totals_do_not_depend_on_how_envelopes_came(envelopes_by_id, data):
    once = list(envelopes_by_id)
    expected = run(envelopes_by_id, once, 1, lambda _: ())
    expected_lines = totals_of_lines(envelopes(expected))

    copies = data.draw(st.lists(st.sampled_from(once), max_size=20), label="copies")
    order = data.draw(st.permutations(once + copies), label="order")
    partitions = data.draw(st.integers(1, 3), label="partitions")
    seed = data.draw(st.integers(0, 2**32), label="seed")
    outputs = run(envelopes_by_id, order, partitions, plan_of(seed))

    assert totals_of_lines(envelopes(outputs)) == expected_lines
    assert totals_of_deltas(deltas(outputs)) == expected_lines
    assert totals_of_deltas(deltas(expected)) == expected_lines
    assert control_totals(outputs) == control_totals(expected)
    verdicts = [each.head["verdict"] for each in envelopes(outputs)]
    assert verdicts.count("duplicate") == len(copies)


@settings(max_examples=150, deadline=None)
@given(sent(), st.integers(0, 2**32))
def test_controls_are_the_sums_of_their_range(envelopes_by_id, seed):
    order = random.Random(seed).choices(list(envelopes_by_id), k=2 * len(envelopes_by_id))
    outputs = run(envelopes_by_id, order, 1, plan_of(seed))
    rest = envelopes(outputs)
    for each in deltas(outputs):
        head = each.head
        if "controls" not in head:
            continue
        part = [x for x in rest if head["first"] <= x.head["offset"] <= head["last"]]
        lines = [event for x in part for event in x.lines]
        ends = [event for event in lines if event["kind"] == "call_end"]
        spent = [event for event in lines if event["kind"] == "cost"]
        model = [event for event in ends if event["operation"] in ("chat", "embeddings")]
        verdicts = [x.head["verdict"] for x in part]
        usage = {}
        for event in ends:
            for unit, count in event.get("usage", {}).items():
                usage[unit] = usage.get(unit, 0) + count
        assert head["controls"] == {
            "envelopes": len(part),
            "duplicates": verdicts.count("duplicate"),
            "refused_envelopes": verdicts.count("refused"),
            "events": sum(x.head["events"] for x in part),
            "refused": sum(x.head["refused"] for x in part),
            "calls": len(model),
            "operations": len(ends) - len(model),
            "failures": sum(event["status"] != "ok" for event in ends),
            "costs": len(spent),
            "cost_pico": str(sum(int(x.get("cost_pico", 0)) for x in model + spent)),
            "unpriced": sum("usage" in x and "cost_pico" not in x for x in model),
            "usage_unknown": sum("usage" not in x for x in model),
            "usage": usage,
        }


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.one_of(calls, costs), min_size=1, max_size=8),
    st.data(),
)
def test_a_bad_line_changes_only_itself(good, data):
    at = data.draw(st.integers(0, len(good)), label="at")
    bad = data.draw(bad_lines, label="bad")
    outputs = run({(source(1), 0): envelope(good)}, [(source(1), 0)], 1, lambda _: ())
    mixed = [*good[:at], bad, *good[at:]]
    with_bad = run({(source(1), 0): envelope(mixed)}, [(source(1), 0)], 1, lambda _: ())
    (clean,), (dirty,) = envelopes(outputs), envelopes(with_bad)
    assert dirty.head["verdict"] == "accepted"
    refused = dirty.lines.pop(at)
    assert refused["kind"] == "refused"
    assert refused["line"] == bad.decode(errors="replace")
    assert dirty.lines == clean.lines
    assert totals_of_deltas(deltas(with_bad)) == totals_of_deltas(deltas(outputs))


HEAD = envelope([], n=0)[:-1]
punctuation = st.sampled_from(b'\n{}":,[0\xff\x00').map(lambda byte: bytes([byte]))
words = st.sampled_from((HEAD, b'{"v":1', b'"seq":', b'"source":', b"null", b"1e999", b"\\ud800"))
starts = st.sampled_from((line(call_end()), b'{"kind":"call_end"'))
fragments = st.one_of(punctuation, words, starts)


@settings(max_examples=400, deadline=None)
@given(
    st.lists(
        st.one_of(st.binary(max_size=60), st.lists(fragments, max_size=8).map(b"".join)), max_size=4
    ),
    st.one_of(st.none(), st.binary(max_size=40), st.just(source(1).encode())),
)
def test_no_bytes_make_it_raise(values, key):
    runtime = CrashingRuntime()
    records = [
        record(value, offset=offset, key=key, timestamp_us=NOW_US)
        for offset, value in enumerate([*values, envelope([call_end()], seq=9)])
    ]
    runtime.run(records)
    found = envelopes(runtime.outputs)
    assert len(found) == len(records)
    for each in found:
        head = each.head
        assert head["verdict"] in ("accepted", "duplicate", "refused")
        if head["verdict"] == "accepted":
            assert len(each.lines) == head["n"] == head["events"] + head["refused"]


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_a_torn_or_flipped_envelope_never_makes_it_raise(data):
    value = bytearray(envelope([call_end(), call_end(outputs={"a": [1]})], seq=0))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(value) - 1))
        value[at] = data.draw(st.integers(0, 255))
    torn = bytes(value[: data.draw(st.integers(0, len(value)))])
    runtime = CrashingRuntime()
    runtime.run([record(torn), record(envelope([call_end()], seq=1), offset=1)])
    first, second = envelopes(runtime.outputs)
    assert first.head["verdict"] in ("accepted", "refused")
    assert second.head["verdict"] in ("accepted", "duplicate")
