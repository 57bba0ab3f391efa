"""A run's document out of the store is the one that was written, figure for figure."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from decimal import Decimal
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

import callmeter
from callmeter.cli.run_metadata import command
from callmeter.compat.sygra import (
    MetadataCollector,
    TokenUsage,
    get_metadata_collector,
    run,
    track_model_request,
    track_node,
)
from callmeter.sdk import api
from callmeter_sinks.queries import Queries
from support.cli import environment
from support.embedded import Pipeline


@pytest.fixture
def collector(
    embedded: Pipeline, project: str, tmp_path, monkeypatch
) -> Iterator[MetadataCollector]:
    """The collector over a client that sends to the real pipeline."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SYGRA_DISABLE_METADATA", raising=False)
    found = get_metadata_collector()
    found.set_enabled(None)
    found.reset()
    before = api.swap(None)
    callmeter.init(embedded.url, project=project, heartbeat_s=0.0)
    yield found
    callmeter.close()
    api.swap(before)
    found.reset()


class Model(TokenUsage):
    """Answers in turn; what it is called with does not matter."""

    def __init__(self, name, kind, *answers, **config):
        self.name = name
        self.model_config = {"type": kind, **config}
        self.answers = list(answers)

    @track_model_request
    async def ask(self, prompt):
        await asyncio.sleep(0.002)
        answer = self.answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        self._extract_token_usage(answer[0])
        return answer


def usage(prompt, completion):
    total = prompt + completion
    counts = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": total}
    return SimpleNamespace(usage=counts)


def stored(embedded: Pipeline, asked: str, *more: str, code: int = 0):
    """What ``callmeter run-metadata`` prints, once everything sent is stored."""
    assert callmeter.flush(30).ok
    now = callmeter.stats()
    embedded.settle(now.source, now.envelopes)
    arguments = [asked, "--dir", str(embedded.directory), "-q", *more]
    done = CliRunner().invoke(command, arguments, standalone_mode=False)
    assert done.exception is None, done.output
    assert done.return_value == code
    return json.loads(done.output)


def test_the_stored_document_is_the_written_one(collector, embedded, project, tmp_path):
    small = Model(
        "gpt-4o-mini", "OpenAI", (usage(440, 920), 200), ("no", 429), (usage(1, 2), 200),
        url="https://api.openai.com/v1", parameters={"max_tokens": 500, "temperature": 0.7},
    )  # fmt: skip
    large = Model("claude-3-haiku", "Bedrock", (usage(1000, 1000), 200), ValueError("no"))
    own = Model("llama", "vLLM", (usage(5, 6), 200))

    async def work(this):
        async with track_node("both", "multi_llm") as node:
            with node.child("small", model="gpt-4o-mini"):
                await small.ask("a")
            with node.child("large", model="claude-3-haiku"):
                await large.ask("a")
        with track_node("again", "llm", model="gpt-4o-mini"):
            await small.ask("b")
            await small.ask("b")
        with track_node("own", "agent", model="llama"):
            await own.ask("c")
        with track_node("plain", "lambda"):
            this.record()
        try:
            await large.ask("d")
        except ValueError:
            this.record(success=False)

    with run(task="tasks.examples.stored", output_dir=tmp_path, batch_size=25) as this:
        collector.set_dataset_metadata("hf", "org/set", 2, 0, "0.0.0", "4b023d2345d21e2d")
        collector.add_dataset_source("a", "hf", "org/a", join_type="primary")
        collector.add_dataset_source("b", "disk", "b.json", join_type="cross")
        asyncio.run(work(this))
        collector.record_model_request(
            "told", "both", 1.25, 200, 7, 8, 20, model_config={"type": "OpenAI"}, cost_usd=0.5
        )
        collector.record_node_execution("told", "llm", 1.25, False, "told", 7, 8, 20, 0.5)
    written = json.loads(this.metadata_path.read_text(encoding="utf-8"))
    found = stored(embedded, this.run_id, "--project", project)
    assert {**found, "generated_at": ""} == {**written, "generated_at": ""}
    # Not equal because both are empty:
    assert found["aggregate_statistics"]["requests"] == {
        "total_requests": 7,
        "total_retries": 1,
        "total_failures": 2,
        "retry_rate": 0.1429,
        "failure_rate": 0.2857,
    }
    assert found["aggregate_statistics"]["tokens"]["total_tokens"] == 3394
    assert found["models"]["gpt-4o-mini"]["cost"]["total_cost_usd"] == 0.000619
    assert found["models"]["claude-3-haiku"]["cost"]["total_cost_usd"] == 0.0015
    assert found["models"]["told"]["cost"]["total_cost_usd"] == 0.5
    assert found["nodes"]["both_small"]["cost"]["total_cost_usd"] == 0.000618
    assert found["nodes"]["again"]["token_statistics"]["total_tokens"] == 3
    assert found["dataset"]["source_type"] == "multi-source"
    # The same run by its task's name, and the same figures in the reports.
    by_name = stored(embedded, "tasks.examples.stored", "--project", project)
    assert {**by_name, "generated_at": ""} == {**written, "generated_at": ""}
    totals = Queries(embedded.store).report(by=["model"], project=project).totals
    assert (totals.calls, totals.failures) == (7, 2)
    assert totals.cost_usd == Decimal("0.50211935")


def test_a_run_that_was_killed_is_there_as_far_as_it_came(collector, embedded, project, tmp_path):
    program = f"""
import os, signal, callmeter
from callmeter.compat.sygra import get_metadata_collector, run
callmeter.init({embedded.url!r}, project={project!r})
with run(task="killed") as this:
    get_metadata_collector().record_model_request("gpt-4o-mini", prompt_tokens=440,
        completion_tokens=920, latency=1.5, model_config={{"type": "OpenAI"}})
    assert callmeter.flush(30).ok
    stats = callmeter.stats()
    print(this.run_id, stats.source, stats.envelopes, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment(),
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr
    run_id, source, envelopes = done.stdout.split()
    embedded.settle(source, int(envelopes))
    found = stored(embedded, run_id, code=2)
    assert found["execution"]["task_name"] == "killed"
    assert found["execution"]["timing"]["end_time"] is None
    block = found["models"]["gpt-4o-mini"]
    assert block["cost"]["total_cost_usd"] == 0.000618
    assert block["performance"]["total_latency_seconds"] == 1.5
    assert list(tmp_path.glob("tasks/**/*.json")) == []


def test_a_correction_moves_the_stored_cost(collector, embedded, project, tmp_path):
    with run(task="corrected", output_dir=tmp_path) as this:
        collector.record_model_request("m", cost_usd=1.0)
    assert stored(embedded, this.run_id)["models"]["m"]["cost"]["total_cost_usd"] == 1.0
    ((call_id,),) = embedded.store.query(
        "SELECT toString(call_id) FROM calls WHERE project = {p:String} AND operation = 'chat'",
        {"p": project},
    ).rows
    callmeter.cost("-0.25", call=call_id, model="m", source="bill")
    assert stored(embedded, this.run_id)["models"]["m"]["cost"]["total_cost_usd"] == 0.75


def test_an_instrumented_client_below_is_billed_once(collector, embedded, project, tmp_path):
    """The decorated method stays in the trace; its client's call is the billable one."""
    from callmeter.sdk.nesting import enter_billable

    class Wrapping:
        name = "gpt-4o-mini"
        model_type = "OpenAI"

        @track_model_request
        def ask(self):
            with callmeter.generation(model="gpt-4o-mini", provider="openai") as inner:
                enter_billable(inner)  # what callmeter.instrument does
                inner.usage(440, 920)
            return usage(440, 920), 200

    node = track_node("n", "llm", model="gpt-4o-mini")
    with run(task="wrapped", output_dir=tmp_path) as this, node:
        Wrapping().ask()
    written = json.loads(this.metadata_path.read_text(encoding="utf-8"))
    found = stored(embedded, this.run_id)
    assert {**found, "generated_at": ""} == {**written, "generated_at": ""}
    assert found["models"]["gpt-4o-mini"]["cost"]["total_cost_usd"] == 0.000618
    totals = Queries(embedded.store).report(by=["model"], project=project).totals
    assert (totals.calls, totals.cost_usd) == (1, Decimal("0.000618"))


def test_no_such_run(collector, embedded):
    done = CliRunner().invoke(
        command, ["no-such-task", "--dir", str(embedded.directory)], standalone_mode=False
    )
    assert "no run 'no-such-task'" in str(done.exception)
