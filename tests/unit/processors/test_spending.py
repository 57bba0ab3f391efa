"""What the meter hands to the watch: equal to a plain sum over the accepted lines, exactly once."""

from __future__ import annotations

import fnmatch
import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callmeter.errors import NewerSchemaError
from callmeter.log.record import LogRecord
from callmeter.schema.budgets import Budget, Slo, check_budget, next_version
from callmeter.schema.spend import spend_partition
from callmeter_processors.limits import MeterLimits
from callmeter_processors.matching import Rules
from callmeter_processors.meter import PartitionMeter
from callmeter_processors.step import Configurable, Output
from support.metering import (
    LOG,
    MODEL_OPERATIONS,
    NOW_US,
    CrashingRuntime,
    TablePricer,
    call_end,
    envelope,
    envelopes,
    oracle_bucket,
    record,
)

PARTITIONS = 4
HOUR_US = 3_600_000_000


def budget(name: str, **fields: Any) -> Budget:
    made = next_version(None, Budget(**{"id": name, "limit_pico": "1"} | fields), 1)
    check_budget(made)
    return made


BUDGETS = [
    budget("all"),
    budget("mini", scope={"model": ["gpt-4o-mini"]}),
    budget("gpt", scope={"model": ["gpt*"], "environment": ["prod", "test"]}, window="hour"),
    budget("users", per="user"),
    budget("alice", scope={"user": ["alice"]}),
    budget("teams", per="tag:team", scope={"provider": ["openai"]}),
    budget("user-models", per="model", scope={"user": ["a*"]}),
    budget("both", scope={"user": ["alice", "bob"], "tag:team": ["red"]}),
    budget("sessions", window="session", per="session"),
    budget("projects", per="project"),
    Budget(id="slow", slo=Slo(measure="latency", max_us=1), scope={"user": ["bob"]}),
    Budget(id="slower", slo=Slo(measure="latency", max_us=1)),
    budget("off", state="disabled"),
    budget("gone", state="deleted"),
]  # fmt: skip


class Budgeted(CrashingRuntime):
    """A runtime whose meter knows budgets, as the runtimes tell it: before the first record."""

    budgets: Sequence[Budget] = BUDGETS

    def start(self) -> PartitionMeter:
        meter = super().start()
        assert isinstance(meter, Configurable)
        meter.configure(self.budgets, self.next, PARTITIONS)
        return meter


def lines_of(outputs: Sequence[Output], kind: str) -> list[dict[str, Any]]:
    """Lines of ``spend`` records, checked to be in the right partition."""
    found = []
    for output in outputs:
        if output.topic != "spend":
            continue
        _, *texts = (output.value or b"").decode().split("\n")[:-1]
        for text in texts:
            line = json.loads(text)
            if line["kind"] == "spend":
                place = spend_partition(line["budget"], line.get("entity", ""), PARTITIONS)
            else:
                place = spend_partition(line["project"], "", PARTITIONS)
            assert output.partition == place
            if line["kind"] == kind:
                found.append(line)
    return found


_MEASURES = ("tokens", "calls", "failures", "unpriced", "usage_unknown")


def spend_totals(outputs: Sequence[Output]) -> Counter[tuple[Any, ...]]:
    sums: Counter[tuple[Any, ...]] = Counter()
    for line in lines_of(outputs, "spend"):
        key = (line["budget"], line.get("entity", ""), line.get("hour", 0))
        sums[(*key, "cost")] += int(line.get("cost_pico", "0"))
        for name in _MEASURES:
            sums[(*key, name)] += line.get(name, 0)
        for bucket, count in line.get("latency_hist", {}).items():
            sums[(*key, bucket)] += count
    return +sums + Counter({key: value for key, value in sums.items() if value < 0})


def value_of(name: str, head: dict[str, Any], event: dict[str, Any]) -> str:
    if name in ("environment", "service") and event["kind"] == "cost":
        return str(event.get(name) or head[name])
    if name in ("project", "environment", "service"):
        return str(head[name])
    if name.startswith("tag:"):
        return str(event.get("tags", {}).get(name[4:], ""))
    return str(event.get(name, ""))


def oracle(outputs: Sequence[Output], budgets: Sequence[Budget]) -> Counter[tuple[Any, ...]]:
    """The same, added up from the accepted lines of ``metered`` and plain pattern matching."""
    sums: Counter[tuple[Any, ...]] = Counter()
    metered = [output for output in outputs if output.topic == "metered"]
    for head, lines in envelopes(metered):
        for event in lines:
            model = event["kind"] == "call_end" and event["operation"] in MODEL_OPERATIONS
            if not model and event["kind"] != "cost":
                continue
            for each in budgets:
                if each.state == "deleted":
                    continue
                if not all(
                    any(fnmatch.fnmatchcase(value_of(name, head, event), p) for p in patterns)
                    for name, patterns in each.scope.items()
                ):
                    continue
                entity = value_of(each.per, head, event) if each.per else ""
                if each.per and not entity:
                    continue
                key = (each.id, entity, event["started_us"] // HOUR_US)
                sums[(*key, "cost")] += int(event.get("cost_pico", "0"))
                if not model:
                    continue
                usage = event.get("usage")
                sums[(*key, "calls")] += 1
                sums[(*key, "failures")] += event["status"] != "ok"
                sums[(*key, "usage_unknown")] += usage is None
                sums[(*key, "unpriced")] += usage is not None and "cost_pico" not in event
                usage = usage or {}
                sums[(*key, "tokens")] += usage.get("input", 0) + usage.get("output", 0)
                if not isinstance(each.slo, msgspec.UnsetType) and "latency_us" in event:
                    sums[(*key, oracle_bucket(event["latency_us"]))] += 1
    return +sums + Counter({key: value for key, value in sums.items() if value < 0})


_user = st.sampled_from(["alice", "bob", "anna", ""])
_events = st.one_of(
    st.builds(
        call_end,
        user=_user,
        session=st.sampled_from(["s1", "s2", ""]),
        model=st.sampled_from(["gpt-4o-mini", "gpt-4o", "unknown"]),
        provider=st.sampled_from(["openai", "azure"]),
        status=st.sampled_from(["ok", "error"]),
        operation=st.sampled_from(["chat", "chat", "execute_tool"]),
        tags=st.sampled_from([{}, {"team": "red"}, {"team": "blue"}]),
        usage=st.sampled_from([{"input": 3, "output": 2}, {"search": 1}, None]),
        latency_us=st.sampled_from([5, 70_000, None]),
        started_us=st.sampled_from([NOW_US, NOW_US - 2 * HOUR_US]),
    ),
    st.builds(
        lambda pico, user: {
            "kind": "cost", "ts_us": NOW_US, "started_us": NOW_US, "source": "bill",
            "cost_pico": str(pico), "user": user, "model": "gpt-4o", "environment": "test",
        },
        st.integers(-50, 50),
        _user,
    ),
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(_events, max_size=6), min_size=1, max_size=12),
    st.lists(st.sampled_from(["go", "checkpoint", "crash"]), max_size=20),
)
def test_spend_is_the_sum_of_what_was_accepted_over_crashes(batches, plan):
    records = [
        record(envelope(events, seq=seq, project=f"shop-{seq % 2}", environment="prod"), offset=seq)
        for seq, events in enumerate(batches)
    ]
    runtime = Budgeted()
    runtime.run(records, plan)
    assert spend_totals(runtime.outputs) == oracle(runtime.outputs, BUDGETS)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(_events, max_size=6), min_size=1, max_size=8))
def test_metered_is_the_same_to_the_byte_with_and_without_budgets(batches):
    records = [record(envelope(events, seq=i), offset=i) for i, events in enumerate(batches)]
    plan = ["go", "checkpoint"] * 10
    plain, budgeted = CrashingRuntime(), Budgeted()
    plain.run(records, plan)
    budgeted.run(records, plan)
    assert plain.outputs == [out for out in budgeted.outputs if out.topic == "metered"]
    sources = {key: value for key, value in budgeted.rows.items() if key.startswith(b"s:")}
    assert plain.rows == sources


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(_events, max_size=6), min_size=1, max_size=8))
def test_projects_gain_what_was_accepted(batches):
    records = [record(envelope(events, seq=i), offset=i) for i, events in enumerate(batches)]
    runtime = Budgeted()
    runtime.run(records, ["checkpoint"] * 5)
    got: Counter[str] = Counter()
    for line in lines_of(runtime.outputs, "live"):
        key = f"{line['minute']} {line['model']}"
        got[key + " calls"] += line.get("calls", 0)
        got[key + " cost"] += int(line.get("cost_pico", "0"))
        got[key + " in"] += line.get("input_tokens", 0)
        got[key + " hist"] += sum(line.get("latency_hist", {}).values())
    true: Counter[str] = Counter()
    for _, lines in envelopes([o for o in runtime.outputs if o.topic == "metered"]):
        for event in lines:
            key = f"{event['started_us'] // 60_000_000} {event.get('model', '')}"
            true[key + " cost"] += int(event.get("cost_pico", "0"))
            if event["kind"] == "call_end" and event["operation"] in MODEL_OPERATIONS:
                true[key + " calls"] += 1
                true[key + " in"] += event.get("usage", {}).get("input", 0)
                true[key + " hist"] += "latency_us" in event
    assert +got == +true


def records_of(count: int) -> list[LogRecord]:
    return [record(envelope([call_end(user="alice")], seq=i), offset=i) for i in range(count)]


def test_the_header_says_which_offsets_are_in():
    runtime = Budgeted()
    runtime.budgets = [budget("all")]
    runtime.run(records_of(5), ["go", "checkpoint"] * 3)
    heads = [
        json.loads((o.value or b"").split(b"\n")[0]) for o in runtime.outputs if o.topic == "spend"
    ]
    assert {(head["first"], head["last"]) for head in heads} == {(0, 1), (2, 3), (4, 4)}
    assert {head["log_ts_us"] for head in heads} == {NOW_US}


def test_large_checkpoints_are_written_in_parts():
    meter = PartitionMeter(LOG, 0, TablePricer(), MeterLimits(delta_part_bytes=500))
    meter.restore({})
    meter.configure([budget("users", per="user")], 0, PARTITIONS)
    meter.process(record(envelope([call_end(user=f"user-{i}") for i in range(40)])))
    outputs = [o for o in meter.checkpoint().outputs if o.topic == "spend"]
    for partition in range(PARTITIONS):
        own = [o for o in outputs if o.partition == partition]
        heads = [json.loads((o.value or b"").split(b"\n")[0]) for o in own]
        assert [head["part"] for head in heads] == list(range(len(heads)))
        assert {head["parts"] for head in heads} == {len(heads)}
        assert max(len(o.value or b"") for o in own) < 800
    assert len(outputs) > 2 * PARTITIONS
    assert len(lines_of(outputs, "spend")) == 40


def test_a_basis_begins_where_it_was_taken_up_and_stays_there():
    runtime = Budgeted()
    runtime.budgets = [budget("all")]
    runtime.next = 3
    first = runtime.start()
    runtime.keep(first, 3)
    row = json.loads(runtime.rows[b"b:all"])
    assert row == {"v": 1, "log": LOG, "basis": 1, "next": 3}
    runtime.run(records_of(6))
    assert json.loads(runtime.rows[b"b:all"]) == row
    assert spend_totals(runtime.outputs)["all", "", NOW_US // HOUR_US, "calls"] == 3


def test_what_is_read_before_an_edit_is_counted_by_what_was_in_force():
    meter = PartitionMeter(LOG, 0, TablePricer())
    meter.restore({})
    old = budget("all")
    meter.configure([old], 0, PARTITIONS)
    records = records_of(4)
    meter.process(records[0])
    moved = next_version(old, msgspec.structs.replace(old, per="user"), 2)
    meter.configure([moved], 1, PARTITIONS)
    meter.process(records[1])
    first = meter.checkpoint()
    assert {
        (line["basis"], line.get("entity", "")) for line in lines_of(first.outputs, "spend")
    } == {(1, "")}
    assert b"b:all" not in first.rows or json.loads(first.rows[b"b:all"])["basis"] == 1
    meter.process(records[2])
    second = meter.checkpoint()
    assert {(line["basis"], line["entity"]) for line in lines_of(second.outputs, "spend")} == {
        (2, "alice")
    }
    begun = {**first.rows, **second.rows}[b"b:all"]
    assert json.loads(begun)["next"] == 2, "the edit began where nothing had counted it"


def test_a_deleted_budget_is_forgotten():
    runtime = Budgeted()
    runtime.budgets = [budget("all")]
    runtime.run(records_of(1))
    runtime.budgets = [msgspec.structs.replace(budget("all"), state="deleted")]
    runtime.run(records_of(2))
    assert b"b:all" not in runtime.rows
    assert spend_totals(runtime.outputs)["all", "", NOW_US // HOUR_US, "calls"] == 1


def test_a_newer_state_of_a_budget_stops_the_worker():
    meter = PartitionMeter(LOG, 0, TablePricer())
    row = b'{"v":2,"log":"%s","basis":1,"next":0}' % LOG.encode()
    with pytest.raises(NewerSchemaError, match="row b:all has format 2"):
        meter.restore({b"b:all": row})
    other = PartitionMeter("another log", 0, TablePricer())
    other.restore({b"b:all": row})


def test_a_meter_that_was_never_told_of_budgets_writes_metered_alone():
    runtime = CrashingRuntime()
    runtime.run(records_of(3))
    assert {output.topic for output in runtime.outputs} == {"metered"}


def test_the_answers_of_matching_are_bounded():
    rules = Rules([budget("all")])
    for i in range(60_000):
        rules.covering(("p", "", "", "", f"model-{i}"))
    assert len(rules._cache) <= 50_000
