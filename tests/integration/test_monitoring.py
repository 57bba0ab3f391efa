"""Dashboards over Prometheus, and the rules: a real Prometheus scrapes the real processes."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml

from callmeter.log.kafka_admin import apply_topics
from callmeter.log.kafka_settings import KafkaSettings
from support.cli import environment, started
from support.kafka_server import Broker
from support.operations import ROOT, script, tool
from support.prometheus import Prometheus, prometheus

RULES = ROOT / "deploy" / "prometheus" / "rules"
BOARDS = sorted((ROOT / "deploy" / "grafana" / "dashboards").glob("*.json"))
_PATIENCE_S = 90.0
#: A metered program that says how its SDK is; it drops some events and sends a bad line.
PROGRAM = """
import sys, time
from prometheus_client import REGISTRY, start_http_server
import callmeter
from callmeter.integrations.prometheus_sdk import SdkMetrics

callmeter.init(sys.argv[1], project="monitored", max_queue_bytes=2**16)
REGISTRY.register(SdkMetrics())
server, _ = start_http_server(0, addr="127.0.0.1")
print(f"http://127.0.0.1:{server.server_port}", flush=True)
for step in range(20_000):
    callmeter.metric("burst", step)
callmeter.flush()
callmeter.metric("loss", 0.5, step=2**70)
while True:
    with callmeter.generation(model="gpt-4o-mini", provider="openai") as call:
        call.usage(input=12, output=7)
    time.sleep(0.05)
"""


def panels() -> list[tuple[str, str]]:
    """(title, PromQL) of every query over Prometheus."""
    found = []
    for file in BOARDS:
        board: dict[str, Any] = json.loads(file.read_text())
        for panel in board["panels"]:
            found += [
                (panel["title"], target["expr"])
                for target in panel.get("targets", ())
                if target["datasource"]["type"] == "prometheus"
            ]
    return found


def rules() -> list[dict[str, Any]]:
    files = RULES.glob("*.rules.yml")
    return [r for f in files for g in yaml.safe_load(f.read_text())["groups"] for r in g["rules"]]


def filled_in(promql: str) -> str:
    return promql.replace("$__rate_interval", "10s")


def selectors(promql: str) -> Iterator[tuple[str, list[str]]]:
    """(metric, labels) of each of our series in an expression, labels of its ``by`` included."""
    by = [label for part in re.findall(r"by \(([^)]*)\)", promql) for label in part.split(",")]
    for name, matchers in re.findall(r"\b(callmeter_\w+)(\{[^}]*\})?", promql):
        yield name, [*re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matchers), *(b.strip() for b in by)]


@pytest.fixture(scope="module")
def scraped(kafka: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """A Prometheus that has scraped every kind of process while events went through."""
    folder = tmp_path_factory.mktemp("prometheus")
    tool("prometheus")  # skips before anything is started
    url = f"{kafka.url}?prefix=monitored-{folder.parent.name}-{time.time_ns()}"
    asyncio.run(apply_topics(KafkaSettings.from_url(url), partitions=2))
    jobs: dict[str, str] = {}

    with ExitStack() as stack:

        def start(job: str, *arguments: object, served: bool = False) -> str:
            """Start a process; what it says of where it is, its store included if it serves one."""
            process = stack.enter_context(started(*arguments, env=environment()))
            assert process.stdout is not None
            store = process.stdout.readline() if served else ""
            line = process.stdout.readline()
            at = re.search(r"http://([\d.]+:\d+)", line)
            if at is None:
                process.kill()
                pytest.fail(f"{job}: {store}{line}{process.communicate()[1]}")
            jobs[job] = at[1]
            return store.split()[-1] if served else at[0]

        collector = start("collector", "collector", "--kafka", url, "--port", "0")
        start("meter", "worker", "--kafka", url, "--metrics", "0")
        start(
            "notify", "notify", "--kafka", url, "--webhook", "http://127.0.0.1:9/",
            "--state", folder / "notify", "--metrics", "0",
        )  # fmt: skip
        start("watch", "worker", "--watch", "--kafka", url, "--metrics", "0")
        store = start(
            "sink", "sink", "--kafka", url, "--store", f"chdb:{folder}/store", "--serve", "0",
            "--metrics", "0", served=True,
        )  # fmt: skip
        start(
            "doctor", "doctor", "--kafka", url, "--store", store, "--url", collector,
            "--spool", str(folder), "--serve", "0", "--every", "1",
        )  # fmt: skip
        program = stack.enter_context(
            subprocess.Popen(
                [sys.executable, "-c", PROGRAM, collector],
                stdout=subprocess.PIPE,
                text=True,
                env=environment(),
            )
        )
        stack.callback(program.kill)
        assert program.stdout is not None
        jobs["program"] = program.stdout.readline().strip().removeprefix("http://")
        server = stack.enter_context(prometheus(folder, jobs, RULES))
        _await(server, jobs)
        yield server


def _await(server: Prometheus, jobs: dict[str, str]) -> None:
    """Until every job is scraped and the last process in the line has something to say."""
    deadline_s = time.monotonic() + _PATIENCE_S
    wanted = [
        f"count(up == 1) == {len(jobs)}",
        "callmeter_sink_events_total > 0",
        "callmeter_worker_dead_letters_total > 0",
        "callmeter_doctor_newest_stored_timestamp_seconds",
        "callmeter_doctor_dead_letters_last_hour > 0",
        "callmeter_doctor_verify_equal",
        "callmeter_worker_state_rows",
        "callmeter_notify_read_timestamp_seconds > 0",
        *(
            f"histogram_quantile(0.5, sum by (le) (rate({name}_seconds_bucket[10s]))) > 0"
            for name in ("callmeter_collector_append", "callmeter_worker_checkpoint")
        ),
    ]  # fmt: skip
    for promql in wanted:
        while not server.series(promql):
            assert time.monotonic() < deadline_s, f"{promql} never came"
            time.sleep(0.2)


@pytest.mark.kafka
@pytest.mark.acceptance(224)
def test_every_query_of_the_dashboards_gives_data(scraped: Prometheus) -> None:
    deadline_s = time.monotonic() + _PATIENCE_S
    for title, promql in panels():
        # A rate needs two scrapes of the last ten seconds, and a busy machine may be late with one.
        while not any(one["value"][1] != "NaN" for one in scraped.series(filled_in(promql))):
            assert time.monotonic() < deadline_s, f"{title}: {promql}"
            time.sleep(0.2)
    assert len(panels()) > 40


@pytest.mark.kafka
def test_every_rule_is_about_series_that_exist(scraped: Prometheus) -> None:
    unknown = []
    for rule in rules():
        for name, labels in selectors(rule["expr"]):
            matchers = ",".join(f'{label}!=""' for label in labels)
            if not scraped.series(f"{name}{{{matchers}}}"):
                unknown.append(f"{rule.get('alert', rule.get('record'))}: {name}{{{matchers}}}")
    assert not unknown, "\n".join(unknown)
    evaluated = [r for g in scraped.ask("rules")["groups"] for r in g["rules"]]
    assert len(evaluated) == len(rules())
    assert not [r for r in evaluated if r["health"] != "ok"]


@pytest.mark.kafka
def test_a_healthy_pipeline_rings_nobody_out_of_bed(scraped: Prometheus) -> None:
    ringing = scraped.series('ALERTS{severity="critical",alertstate="firing"}')
    firing = {one["metric"]["alertname"] for one in ringing}
    assert firing == set()


def test_each_alert_sounds_when_it_should_and_only_then() -> None:
    done = subprocess.run(
        [tool("promtool"), "test", "rules", "callmeter.test.yml"],
        cwd=ROOT / "deploy/prometheus/tests", capture_output=True, text=True, check=False,
        timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    told = (ROOT / "deploy/prometheus/tests/callmeter.test.yml").read_text()
    for rule in rules():
        assert rule.get("alert", rule.get("record")) in told


def test_every_alert_names_a_section_of_the_runbook() -> None:
    checks = script("check_docs")
    for rule in rules():
        if "alert" in rule:
            page, _, anchor = rule["annotations"]["runbook"].partition("#")
            text = (ROOT / page).read_text()
            assert anchor in checks.anchors(text), rule["alert"]
            assert rule["labels"]["severity"] in ("critical", "warning", "info")


def test_the_dashboards_are_as_their_description_makes_them() -> None:
    done = subprocess.run(
        [sys.executable, Path("scripts/make_dashboards.py"), "--check"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
