"""Commands that answer questions, over what the SDK sent, against the figures of ``report``."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import dataclass
from decimal import Decimal
from uuid import uuid4

import pytest

import callmeter
from callmeter.ids import uuid7
from callmeter.schema.envelope import Header, encode
from callmeter.transports.factory import open_transport
from callmeter.transports.protocol import Sealed
from callmeter_sinks.queries.arrivals import Arrival, Arrivals
from support.cli import callmeter as run
from support.embedded import Pipeline

CALLS = 6
EXPERIMENT = "lr-sweep"


@dataclass
class Filled:
    """A project with a program of six calls, one unpriced and one failed, and an experiment."""

    pipeline: Pipeline
    project: str
    call_id: str
    trace_id: str

    def ask(self, *arguments: object, code: int = 0) -> str:
        ran = run(*arguments, "--dir", self.pipeline.directory, "--project", self.project)
        assert ran.code == code, ran.err + ran.out
        return ran.out

    def json(self, *arguments: object, code: int = 0) -> dict[str, object]:
        ran = run(*arguments, "--dir", self.pipeline.directory, "--project", self.project, "--json")
        assert ran.code == code, ran.err + ran.out
        import orjson

        said: dict[str, object] = orjson.loads(ran.out)
        return said


@pytest.fixture(scope="module")
def filled(embedded: Pipeline) -> Filled:
    project = f"q-{uuid4().hex[:12]}"
    client = callmeter.init(embedded.url, project=project, service="shop")
    ids = []
    try:
        with callmeter.program("nightly"), callmeter.generation("root", model="gpt-4o") as root:
            root.usage(input=1000, output=100)
            for number in range(CALLS - 3):
                with callmeter.generation(model="gpt-4o-mini", provider="openai") as call:
                    call.usage(input=100 + number, output=10)
                    ids.append(call.id)
        with callmeter.generation(model="secret", provider="nobody") as call:
            call.usage(input=7, output=5)
        with (
            pytest.raises(RuntimeError, match="slow down"),
            callmeter.generation(model="gpt-4o-mini", provider="openai"),
        ):
            raise RuntimeError("slow down")
        made = callmeter.experiment(EXPERIMENT, description="which rate", meta={"lr": 0.1})
        for step in range(20):
            made.metric("loss", 1 / (step + 1), step=step)
        made.metric("accuracy", 0.5, step=3)
        callmeter.annotation("looks good", experiment=EXPERIMENT)
        result = callmeter.flush_or_raise()
        assert result.ok
        source = callmeter.stats().source
    finally:
        client.close()
    ask = embedded.queries
    embedded.wait(lambda: ask.report(project=project).totals.calls == CALLS)
    embedded.wait(lambda: any(row.source == source and row.closed for row in ask.sources()))
    # Of one insert the rollups and the ledger may be seen a moment before the calls.
    embedded.wait(lambda: any(row.call_id == ids[0] for row in ask.calls(project=project)))
    trace = next(row for row in ask.calls(project=project) if row.call_id == ids[0])
    return Filled(embedded, project, ids[0], trace.trace_id)


def report(filled: Filled) -> dict[str, object]:
    return filled.json("report")


def test_trace_by_its_id_and_by_a_call(filled: Filled) -> None:
    by_trace = filled.json("trace", filled.trace_id)
    by_call = filled.json("trace", filled.call_id)
    assert by_trace == by_call
    rows = by_trace["rows"]
    assert isinstance(rows, list)
    assert [row["depth"] for row in rows] == [0, 1, 1, 1]
    assert filled.call_id in {row["call_id"] for row in rows}
    assert Decimal(str(by_trace["cost_usd"])) == sum(Decimal(row["cost_usd"]) for row in rows)
    drawn = filled.ask("trace", filled.trace_id)
    assert drawn.count("█") >= 4
    assert "gpt-4o-mini" in drawn
    assert f"{len(rows)} operations, cost {by_trace['cost_usd']} USD" in drawn


def test_a_trace_that_is_not_there(filled: Filled) -> None:
    assert filled.ask("trace", "f" * 32, code=1) == ""
    ran = run("trace", "nonsense", "--dir", filled.pipeline.directory)
    assert ran.code == 64
    assert "32 hexadecimal digits" in ran.err


def test_top_is_the_report_with_rates(filled: Filled) -> None:
    said = filled.json("top", "--window", "1h")
    totals = said["totals"]
    wanted = report(filled)["totals"]
    assert isinstance(totals, dict)
    assert isinstance(wanted, dict)
    for name in ("calls", "failures", "input_tokens", "output_tokens", "cost_usd"):
        assert totals[name] == wanted[name], name
    assert totals["calls_per_s"] == pytest.approx(CALLS / 3600, abs=0.001)
    hourly = Decimal(totals["cost_per_h_usd"])
    assert 0 < hourly <= Decimal(totals["cost_usd"])
    rows = said["rows"]
    assert isinstance(rows, list)
    assert sum(row["calls"] for row in rows) == CALLS
    assert "gpt-4o-mini" in filled.ask("top", "--once", "--window", "1h")


def test_tail_prints_every_stored_call_once(filled: Filled) -> None:
    lines = filled.ask("tail", "--once", "--limit", 100, "--csv").splitlines()
    rows = list(csv.DictReader(lines))
    assert len(rows) == CALLS
    costs = sum((Decimal(row["cost_usd"]) for row in rows if row["cost_usd"]), Decimal(0))
    totals = report(filled)["totals"]
    assert isinstance(totals, dict)
    assert costs == Decimal(totals["cost_usd"])
    assert len(filled.ask("tail", "--once", "--limit", 2).splitlines()) == 2


def test_following_gives_every_arrival_once(filled: Filled, project: str) -> None:
    arrivals = Arrivals(filled.pipeline.store, project=project)
    assert list(arrivals.new()) == []
    found: list[Arrival] = []
    for round_ in range(3):
        source = uuid7()
        header = Header(source, 0, 1, _now_us(), project, accepted=1)
        line = b'{"kind":"call_end","round":%d}' % round_
        deliver(filled.pipeline.url, [Sealed(source, 0, 1, encode(header, [line]))])
        filled.pipeline.wait(lambda: bool(found.extend(arrivals.new()) or found[round_:]))  # noqa: B023
    assert [(each.kind, each.project) for each in found] == [("dead letter", project)] * 3
    assert list(arrivals.new()) == []


def test_experiment_with_its_plot(filled: Filled) -> None:
    said = filled.json("experiment", EXPERIMENT)
    assert said["metadata"] == {"lr": 0.1}
    assert said["description"] == "which rate"
    notes, values, series = said["notes"], said["values"], said["series"]
    assert isinstance(notes, list)
    assert [note["text"] for note in notes] == ["looks good"]
    assert isinstance(values, list)
    assert {(v["metric"], v["points"], v["step"], v["value"]) for v in values} == {
        ("loss", 20, 19, 0.05),
        ("accuracy", 1, 3, 0.5),
    }
    assert isinstance(series, dict)
    assert series["metric"] == "loss"
    assert series["steps"] == list(range(20))
    drawn = filled.ask("experiment", EXPERIMENT)
    assert drawn.count("*") >= 15
    assert re.search(r"^ +1 \|\*", drawn, re.MULTILINE)
    assert "looks good" in drawn
    assert "accuracy, 1 points" in filled.ask("experiment", EXPERIMENT, "--metric", "accuracy")


def test_experiment_says_what_there_is(filled: Filled) -> None:
    ran = run("experiment", EXPERIMENT, "--metric", "lost", "--project", filled.project,
              "--dir", filled.pipeline.directory)  # fmt: skip
    assert ran.code == 64
    assert "accuracy, loss" in ran.err
    assert filled.ask("experiment", "none-such", code=1) == ""


def test_unpriced_are_those_of_the_report(filled: Filled) -> None:
    rows = filled.json("prices", "unpriced")["rows"]
    totals = report(filled)["totals"]
    assert isinstance(rows, list)
    assert isinstance(totals, dict)
    assert [(row["provider"], row["model"], row["calls"]) for row in rows] == [
        ("nobody", "secret", 1)
    ]
    assert totals["unpriced_calls"] == sum(row["calls"] for row in rows)


def test_gaps_drops_and_dead_letters(filled: Filled, project: str) -> None:
    assert "nothing is missing" in filled.ask("gaps")
    source = uuid7()
    end = b'{"kind":"call_end"}'
    sent = [
        Header(source, 0, 1, _now_us(), project, accepted=1),
        Header(source, 3, 1, _now_us(), project, accepted=6, dropped={"queue_full": 2}),
    ]
    deliver(filled.pipeline.url, [Sealed(source, h.seq, 1, encode(h, [end])) for h in sent])
    filled.pipeline.settle(source, 2)
    other = Filled(filled.pipeline, project, "", "")
    said = other.json("gaps", code=2)
    gaps, dropped, dead = said["gaps"], said["dropped"], said["dead_letters"]
    assert isinstance(gaps, list)
    assert [(gap["first"], gap["last"], gap["envelopes"], gap["events"]) for gap in gaps] == [
        (1, 2, 2, 4)
    ]
    assert isinstance(dropped, list)
    assert [(row["reason"], row["events"]) for row in dropped] == [("queue_full", 2)]
    assert isinstance(dead, list)
    assert sum(row["events"] for row in dead) == 2
    table = list(csv.DictReader(io.StringIO(other.ask("gaps", "--csv", code=2))))
    assert [row["what"] for row in table] == ["gap", "dropped", "dead letter"]
    assert other.ask("tail", "--once").count("dead letter") == 2


@pytest.mark.parametrize(
    "command",
    [
        ("gaps",), ("trace", "0" * 31 + "1"), ("top", "--once"), ("tail", "--once"),
        ("experiment", "x"), ("prices", "unpriced"),
    ],
)  # fmt: skip
def test_nothing_to_read_is_one_helpful_line(command: tuple[str, ...], tmp_path: object) -> None:
    ran = run(*command, "--dir", f"{tmp_path}/nowhere")
    assert ran.code == 78
    assert "start `callmeter up`" in ran.err
    assert len(ran.err.splitlines()) == 1
    both = run(*command, "--json", "--csv", "--dir", f"{tmp_path}/nowhere")
    assert both.code == 64 or command[0] == "prices"


def deliver(url: str, envelopes: list[Sealed]) -> None:
    from callmeter.clock import SystemClock
    from callmeter.replay.sending import send_all

    assert send_all(open_transport(url), envelopes, clock=SystemClock()).refused == []


def _now_us() -> int:
    from callmeter.clock import SystemClock

    return SystemClock().now_us()
