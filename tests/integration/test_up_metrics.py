"""``/metrics`` of ``callmeter up``: every part, by the names that the shipped rules ask for."""

from __future__ import annotations

import re
import urllib.request

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from support.embedded import Pipeline
from support.operations import ROOT
from support.wire_producer import WireProducer, send

RULES = ROOT / "deploy" / "prometheus" / "rules" / "callmeter.rules.yml"
#: What is counted by reason has no series before the first; notify is not in every `up`.
SELDOM = {"callmeter_worker_dead_letters_total"}
ELSEWHERE = ("callmeter_doctor", "callmeter_sdk", "callmeter_notify")


def scrape(url: str) -> dict[str, list[tuple[dict[str, str], float]]]:
    with urllib.request.urlopen(f"{url}/metrics", timeout=30) as answer:
        text = answer.read().decode()
    names = re.findall(r"(?m)^# TYPE (\S+)", text)
    assert len(names) == len(set(names)), "a family is there twice"
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found


@pytest.mark.slow
def test_up_shows_all_its_parts(embedded: Pipeline, project: str) -> None:
    producer = WireProducer(project=project)
    send(embedded.url, [producer.envelope() for _ in range(3)])
    # Rows can be seen a moment before the insert that brought them has ended and is counted.
    embedded.wait(lambda: scrape(embedded.url)["callmeter_sink_events_total"][0][1] >= 9)
    found = scrape(embedded.url)
    records = {labels["stage"]: value for labels, value in found["callmeter_worker_records_total"]}
    assert records.keys() == {"meter", "watch"}
    assert records["meter"] >= 3
    assert len(found["callmeter_sink_lag_records"]) == 4
    assert found["callmeter_sink_inserts_total"][0][1] >= 1
    assert found["callmeter_collector_envelopes_total"][0][1] >= 3
    assert "process_cpu_seconds_total" in found
    rules = [r for g in yaml.safe_load(RULES.read_text())["groups"] for r in g["rules"]]
    asked = {name for r in rules for name in re.findall(r"\bcallmeter_\w+", r["expr"])}
    ours = {name for name in asked if not name.startswith(ELSEWHERE)}
    assert ours - SELDOM <= found.keys()
