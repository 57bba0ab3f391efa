"""Meter and watch over one SQLite log: budgets reach their true spend, also over restarts."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import orjson
import pytest

from callmeter.clock import ManualClock
from callmeter.errors import NewerSchemaError
from callmeter.log.record import NewRecord
from callmeter.log.sqlite_log import SqliteLog
from callmeter.schema.alerts import decode_alert
from callmeter.schema.budgets import Budget, Slo, encode_budget, next_version
from callmeter.schema.live import decode_live
from callmeter.schema.status import BudgetStatus, decode_status
from callmeter_processors.meter import meter_factory
from callmeter_processors.runtime.local import LocalRuntime
from callmeter_processors.watch.step import watch_factory
from support.metering import NOW_US, TablePricer, call_end, envelope, source

PARTITIONS = 3
TEAM = next_version(None, Budget(id="team", limit_pico="40000000", action="stop"), 1)
USERS = next_version(None, Budget(id="users", limit_pico="9000000", per="user"), 1)


class Pipeline:
    """A meter and a watch over a log, made anew whenever asked."""

    def __init__(self, log: SqliteLog, clock: ManualClock) -> None:
        self.log = log
        self.clock = clock

    def drain(self) -> None:
        meter = LocalRuntime(self.log, meter_factory(TablePricer()), clock=self.clock)
        meter.drain()
        watch = LocalRuntime(
            self.log, watch_factory(), source="spend", state="watch-state", clock=self.clock
        )
        watch.drain()

    def define(self, *budgets: Budget) -> None:
        self.log.append([NewRecord("budgets", b.id.encode(), encode_budget(b)) for b in budgets])

    def statuses(self) -> dict[str, BudgetStatus]:
        found = {}
        for partition in range(PARTITIONS):
            for key, value in self.log.rows("budget-status", partition).items():
                found[key.decode()] = decode_status(value)
        return found

    def records(self, topic: str) -> list[bytes]:
        return [
            record.value or b""
            for partition in range(PARTITIONS)
            for record in self.log.read(topic, partition, 0, max_records=10_000)
        ]


@pytest.fixture
def pipeline(tmp_path: Path):
    clock = ManualClock(NOW_US)
    with SqliteLog(tmp_path / "log.db", partitions=PARTITIONS, clock=clock) as log:
        yield Pipeline(log, clock)


def send(pipeline: Pipeline, rng: random.Random, seqs: range, sources: int = 4) -> None:
    for number in range(1, sources + 1):
        for seq in seqs:
            events = [
                call_end(user=rng.choice(["alice", "bob"]), usage={"input": rng.randrange(9)})
                for _ in range(3)
            ]
            value = envelope(events, source=source(number), seq=seq)
            key = source(number).encode()
            pipeline.log.append([NewRecord("events", key, value)] * rng.choice([1, 2]))


def truth(pipeline: Pipeline) -> Counter[str]:
    """Pico-USD as the metered lines have it, in all and by user."""
    sums: Counter[str] = Counter()
    for value in pipeline.records("metered"):
        head, *lines = map(orjson.loads, value.split(b"\n")[:-1])
        if head["type"] != "envelope":
            continue
        for event in lines:
            pico = int(event["cost_pico"])
            sums["team|"] += pico
            sums[f"users|{event['user']}"] += pico
    return sums


def test_budgets_end_at_the_true_spend(pipeline):
    pipeline.define(TEAM, USERS)
    rng = random.Random(5)
    for start in range(0, 20, 4):
        send(pipeline, rng, range(start, start + 4))
        pipeline.drain()
    statuses = pipeline.statuses()
    true = truth(pipeline)
    assert {key: int(status.spend_pico) for key, status in statuses.items()} == true
    assert true["team|"] > 40_000_000
    assert statuses["team|"].stops
    ends = {p: end - 1 for p, end in pipeline.log.end_offsets("events").items() if end}
    assert statuses["team|"].included == ends
    alerts = [decode_alert(value) for value in pipeline.records("alerts")]
    assert len({alert.id for alert in alerts}) == len(alerts)
    expected = Counter()
    for key, pico in true.items():
        limit = 40_000_000 if key == "team|" else 9_000_000
        expected[key.split("|")[0]] += sum(pico * 100 >= limit * p for p in (50, 80, 100))
    assert Counter(alert.rule for alert in alerts) == +expected


def test_a_budget_set_later_counts_from_where_each_partition_was(pipeline):
    rng = random.Random(6)
    send(pipeline, rng, range(3))
    pipeline.drain()
    before = truth(pipeline)["team|"]
    pipeline.define(TEAM)
    send(pipeline, rng, range(3, 6))
    pipeline.drain()
    status = pipeline.statuses()["team|"]
    assert int(status.spend_pico) == truth(pipeline)["team|"] - before
    for partition in range(PARTITIONS):
        begun = orjson.loads(pipeline.log.rows("meter-state", partition)[b"b:team"])
        assert begun["next"] <= pipeline.log.end_offset("events", partition)


def test_a_definition_reaches_runtimes_that_run(pipeline):
    meter = LocalRuntime(pipeline.log, meter_factory(TablePricer()), checkpoint_s=0.01)
    # The log's time is the test's: the day of its events is over by any other clock.
    watch = LocalRuntime(
        pipeline.log, watch_factory(), source="spend", state="watch-state", clock=pipeline.clock
    )
    meter.start()
    watch.start()
    try:
        pipeline.define(TEAM)
        for partition in range(PARTITIONS):
            while b"b:team" not in pipeline.log.rows("meter-state", partition):
                assert meter.failed is None
                pipeline.log.wait("meter-state", {partition: 1 << 40}, 0.05)
        send(pipeline, random.Random(7), range(2))
        meter.drain()
        watch.drain()
    finally:
        meter.stop()
        watch.stop()
    assert int(pipeline.statuses()["team|"].spend_pico) == truth(pipeline)["team|"]


def test_projects_are_said_and_what_is_no_definition_is_left_out(pipeline, caplog):
    pipeline.log.append([NewRecord("budgets", b"bad", b'{"id":"bad"}')])
    pipeline.log.append([NewRecord("budgets", b"worse", b"no json")])
    pipeline.define(TEAM)
    send(pipeline, random.Random(8), range(2), sources=1)
    pipeline.drain()
    assert int(pipeline.statuses()["team|"].spend_pico) == truth(pipeline)["team|"]
    assert caplog.text.count("is left out") >= 2
    (live,) = {
        value
        for partition in range(PARTITIONS)
        for value in pipeline.log.rows("live", partition).values()
    }
    day = [window for window in decode_live(live).windows if window.window == "day"]
    assert day[0].models[0].calls == 6
    assert int(day[0].models[0].cost_pico) == truth(pipeline)["team|"]


def test_a_definition_of_a_newer_format_stops_the_meter(pipeline):
    newer = encode_budget(TEAM).replace(b'"v":1', b'"v":2')
    pipeline.log.append([NewRecord("budgets", b"team", newer)])
    with pytest.raises(NewerSchemaError, match="update the workers"):
        LocalRuntime(pipeline.log, meter_factory(TablePricer())).drain()


def test_objectives_are_broken_and_met_again_by_what_the_meter_hands_on(pipeline):
    """Error rate and latency over the calls themselves, duplicates and late calls included."""
    errors = Slo(measure="error_rate", max_ppm=200_000, min_calls=10)
    slow = Slo(measure="latency", quantile_ppm=900_000, max_us=2_000_000, min_calls=10)
    pipeline.define(
        next_version(None, Budget(id="errors", slo=errors), 1),
        next_version(None, Budget(id="slow", slo=slow), 1),
    )
    calls: list[tuple[str, int]] = []

    def send_calls(seq: int, status: str, latency_us: int, count: int) -> None:
        events = [call_end(status=status, latency_us=latency_us) for _ in range(count)]
        value = envelope(events, source=source(1), seq=seq)
        pipeline.log.append([NewRecord("events", source(1).encode(), value)] * 2)
        calls.extend([(status, latency_us)] * count)
        pipeline.drain()

    def said() -> list[tuple[str, str]]:
        found = [decode_alert(value) for value in pipeline.records("alerts")]
        return [(alert.rule, alert.kind) for alert in found]

    send_calls(0, "error", 5_000_000, 9)
    assert said() == [], "too few calls to say"
    send_calls(1, "ok", 1_000_000, 21)
    assert sorted(said()) == [("errors", "slo"), ("slow", "slo")]
    status = pipeline.statuses()
    failures = sum(ended == "error" for ended, _ in calls)
    assert status["errors|"].value == failures * 1_000_000 // len(calls) == 300_000
    assert status["errors|"].state == "exceeded"
    ranked = sorted(latency_us for _, latency_us in calls)
    assert status["slow|"].value == pytest.approx(ranked[26], rel=0.01083)
    send_calls(2, "ok", 100_000, 170)
    assert sorted(said())[1::2] == [("errors", "slo_met"), ("slow", "slo_met")]
    status = pipeline.statuses()
    assert status["errors|"].value == 9 * 1_000_000 // 200
    assert status["slow|"].state == "ok"
