"""The meter as a step: what a checkpoint holds, in which order, and what a restart needs."""

import json
from itertools import pairwise

import pytest

from callmeter.errors import NewerSchemaError
from callmeter_processors.limits import DAY_US
from callmeter_processors.meter import PartitionMeter, meter_factory
from callmeter_processors.ordinary import EveryLine
from callmeter_processors.step import Checkpoint, Step
from support.metering import (
    LOG,
    NOW_US,
    CrashingRuntime,
    TablePricer,
    call_end,
    deltas,
    envelope,
    envelopes,
    read,
    record,
    source,
)


def records_of(*values, keys=None, first=0):
    keys = keys or [source(1)] * len(values)
    pairs = enumerate(zip(values, keys, strict=True), first)
    return [record(value, offset=i, key=key.encode()) for i, (value, key) in pairs]


def test_a_factory_makes_the_step_of_a_partition():
    step: Step = meter_factory(TablePricer())(LOG, 5)
    step.restore({})
    step.process(record(envelope([call_end()]), partition=5))
    step.tick(NOW_US)
    outputs = step.checkpoint().outputs
    assert {output.partition for output in outputs} == {5}
    assert {each.head["partition"] for each in read(outputs)} == {5}


def test_outputs_are_the_envelopes_in_order_and_then_the_deltas():
    meter = PartitionMeter(LOG, 0, TablePricer())
    values = [envelope([call_end()], seq=seq) for seq in (0, 1, 1)] + [b"nonsense"]
    for each in records_of(*values, first=40):
        meter.process(each)
    outputs = meter.checkpoint().outputs
    heads = [each.head for each in read(outputs)]
    assert [head.get("offset") for head in heads] == [40, 41, 42, 43, None]
    verdicts = [head.get("verdict") for head in heads]
    assert verdicts == ["accepted", "accepted", "duplicate", "refused", None]
    nil = b"00000000-0000-0000-0000-000000000000"
    assert [output.key for output in outputs] == [source(1).encode()] * 3 + [nil, b"deltas"]
    assert {output.topic for output in outputs} == {"metered"}
    assert (heads[-1]["first"], heads[-1]["last"]) == (40, 43)
    assert heads[-1]["controls"]["envelopes"] == 4
    assert heads[-1]["controls"]["duplicates"] == 1
    assert heads[-1]["controls"]["refused_envelopes"] == 1


def test_a_duplicate_has_a_header_and_no_lines_whatever_its_bytes():
    meter = PartitionMeter(LOG, 0, TablePricer())
    other = envelope([call_end(model="gpt-4o"), b"nonsense"], service="another")
    for each in records_of(envelope([call_end()]), other):
        meter.process(each)
    first, second = envelopes(meter.checkpoint().outputs)
    assert (first.head["verdict"], len(first.lines)) == ("accepted", 1)
    assert (second.head["verdict"], second.lines) == ("duplicate", [])
    assert (second.head["n"], second.head["events"], second.head["refused"]) == (2, 0, 0)
    assert second.head["service"] == "another"


def test_lines_stand_at_their_numbers():
    meter = PartitionMeter(LOG, 0, TablePricer())
    lines = [call_end(name="1"), b"", call_end(name="3"), b"[]", call_end(name="5")]
    meter.process(record(envelope(lines)))
    (metered,) = envelopes(meter.checkpoint().outputs)
    kinds = [each["kind"] for each in metered.lines]
    assert kinds == ["call_end", "refused", "call_end", "refused", "call_end"]
    assert [each.get("name") for each in metered.lines] == ["1", None, "3", None, "5"]
    assert (metered.head["n"], metered.head["events"], metered.head["refused"]) == (5, 3, 2)


def test_an_idle_checkpoint_is_empty():
    meter = PartitionMeter(LOG, 0, TablePricer())
    assert meter.checkpoint() == Checkpoint()
    meter.process(record(envelope([call_end()])))
    meter.checkpoint()
    assert meter.checkpoint() == Checkpoint()


def test_a_checkpoint_of_nothing_but_duplicates_still_ends_with_deltas():
    meter = PartitionMeter(LOG, 0, TablePricer())
    meter.process(record(envelope([call_end()])))
    meter.checkpoint()
    meter.process(record(envelope([call_end()]), offset=1))
    checkpoint = meter.checkpoint()
    (metered,) = deltas(checkpoint.outputs)
    assert metered.lines == []
    assert (metered.head["first"], metered.head["last"], metered.head["parts"]) == (1, 1, 1)
    assert checkpoint.rows == {}


def test_first_and_last_follow_each_other():
    runtime = CrashingRuntime()
    values = [envelope([call_end()], seq=seq) for seq in range(9)]
    plan = ["go", "checkpoint", "crash", "checkpoint", "go", "go", "checkpoint"]
    runtime.run(records_of(*values), plan)
    spans = [(each.head["first"], each.head["last"]) for each in deltas(runtime.outputs)]
    assert spans[0][0] == 0
    assert spans[-1][1] == 8
    assert all(one[1] + 1 == two[0] for one, two in pairwise(spans))


def test_rows_know_duplicates_after_a_restart():
    runtime = CrashingRuntime()
    values = [envelope([call_end()], seq=seq) for seq in (0, 2)]
    runtime.run(records_of(*values))
    # Beside it, ends are remembered whose begin may be in the gap.
    (key,) = (key for key in runtime.rows if not key.startswith(b"o:"))
    assert key == f"s:{source(1)}".encode()
    row = json.loads(runtime.rows[key])
    assert row == {
        "v": 2,
        "log": LOG,
        "next": 3,
        "seen_us": NOW_US,
        "gaps": [[1, 1, NOW_US]],
        "project": "shop",
    }
    again = [envelope([call_end()], seq=seq) for seq in (0, 1, 1, 2)]
    runtime.run(records_of(*values, *again))
    verdicts = [each.head["verdict"] for each in envelopes(runtime.outputs)]
    assert verdicts[2:] == ["duplicate", "accepted", "duplicate", "duplicate"]
    whole = {"v": 2, "log": LOG, "next": 3, "seen_us": NOW_US, "project": "shop"}
    assert json.loads(runtime.rows[key]) == whole


def test_state_of_another_log_is_no_state():
    runtime = CrashingRuntime()
    runtime.run(records_of(envelope([call_end()])))
    meter = PartitionMeter("another", 0, TablePricer())
    meter.restore(runtime.rows)
    meter.process(record(envelope([call_end()])))
    (metered,) = envelopes(meter.checkpoint().outputs)
    assert metered.head["verdict"] == "accepted"


def test_newer_state_stops_the_worker():
    meter = PartitionMeter(LOG, 0, TablePricer())
    with pytest.raises(NewerSchemaError):
        meter.restore({b"s:" + source(1).encode(): b'{"v":99,"log":"%s"}' % LOG.encode()})


def test_a_forgotten_source_leaves_a_tombstone_and_its_copies_are_too_late():
    """Nothing is counted twice, however late a copy comes: remembered, or past the horizon."""
    runtime = CrashingRuntime()
    first = envelope([call_end()], last=True)
    runtime.run([record(first)])
    later_us = NOW_US + 33 * DAY_US
    other = envelope([call_end()], source=source(2), sent_us=later_us)
    records = [
        record(first),
        record(other, offset=1, key=source(2).encode(), timestamp_us=later_us),
        record(first, offset=2, timestamp_us=later_us),
    ]
    runtime.run(records[:2])
    assert set(runtime.rows) == {f"s:{source(2)}".encode()}
    runtime.run(records)
    verdicts = [(x.head["verdict"], x.head["reason"]) for x in envelopes(runtime.outputs)]
    assert verdicts == [("accepted", ""), ("accepted", ""), ("refused", "too_late")]


def test_an_envelope_in_a_gap_given_up_is_a_dead_letter():
    runtime = CrashingRuntime()
    sparse = [envelope([call_end()], seq=seq) for seq in range(1, 1200, 2)]
    runtime.run(records_of(*sparse, envelope([call_end()], seq=0), sparse[0], sparse[-1]))
    *_, given_up, old, recent = envelopes(runtime.outputs)
    assert (given_up.head["verdict"], given_up.head["reason"]) == ("refused", "too_late")
    assert "'seq'" in given_up.head["detail"]
    assert old.head["verdict"] == "refused"
    assert recent.head["verdict"] == "duplicate"


def calls_of(count):
    """Lines of an envelope: begins and their ends far apart, some that are refused, any kind."""
    ids = [f"018f0000-0000-7000-8000-{n:012x}" for n in range(count)]
    for n, call_id in enumerate(ids):
        if n % 7 == 0:
            yield {
                "kind": "call_begin", "ts_us": NOW_US, "started_us": NOW_US, "operation": "chat",
                "call_id": call_id, "trace_id": f"{n:032x}", "model": f"m{n % 3}",
            }  # fmt: skip
        elif n % 11 == 0:
            yield b"nonsense"
        elif n % 13 == 0:
            yield call_end(call_id="X" * 36)
        elif n > 40 and n % 7 == 1:
            yield call_end(call_id=ids[n - 36], model="m1")
        else:
            yield call_end(call_id=call_id, model=f"m{n % 3}", latency_us=1000 * n)


@pytest.mark.parametrize("lines", [0, 1, 31, 32, 33, 64, 97, 200])
@pytest.mark.parametrize("at_a_time", [1, 7, 1000])
def test_how_many_lines_are_taken_together_changes_nothing(monkeypatch, lines, at_a_time):
    """Each is judged alone, and what is open is the same however an envelope is cut."""

    def run():
        meter = PartitionMeter(LOG, 0, TablePricer(), reader=EveryLine())
        for seq, chosen in enumerate([list(calls_of(lines)), [], list(calls_of(lines // 2))]):
            meter.process(record(envelope(chosen, seq=seq, last=seq == 2), offset=seq))
        meter.tick(NOW_US + DAY_US)
        return meter.checkpoint()

    usual = run()
    monkeypatch.setattr("callmeter_processors.ordinary.LINES_AT_A_TIME", at_a_time)
    assert run() == usual
    accepted = envelopes(usual.outputs)
    assert [each.head["n"] for each in accepted] == [lines, 0, lines // 2]
    assert all(each.head["events"] + each.head["refused"] == each.head["n"] for each in accepted)
    assert (usual.counts.get(("alerts", "orphaned"), 0) > 0) == (lines > 0)


def test_an_envelope_without_lines_that_is_the_last_ends_its_source():
    meter = PartitionMeter(LOG, 0, TablePricer())
    begin = next(iter(calls_of(1)))
    meter.process(record(envelope([begin]), offset=0))
    meter.process(record(envelope([], seq=1, last=True), offset=1))
    meter.tick(NOW_US)
    assert meter.checkpoint().counts["alerts", "orphaned"] == 1
