"""``callmeter doctor`` over real parts: well, ill, and as metrics."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from aiokafka.admin import NewTopic
from prometheus_client.parser import text_string_to_metric_families

from callmeter.cli.doctor_metrics import METRICS
from callmeter.log.kafka_admin import apply_topics
from callmeter.log.kafka_clients import make_admin
from callmeter.log.kafka_settings import KafkaSettings
from callmeter.schema.topics import EVENTS
from support.cli import callmeter, environment, started
from support.embedded import Pipeline
from support.kafka_server import Broker

ROOT = Path(__file__).parents[2]


def findings(out: str) -> dict[str, dict[str, Any]]:
    return {each["piece"]: each for each in json.loads(out)}


def test_an_embedded_pipeline_is_well(embedded: Pipeline) -> None:
    ran = callmeter("doctor", "--dir", embedded.directory, "--url", embedded.url, "--json")
    assert ran.code == 0, ran.out + ran.err
    found = findings(ran.out)
    assert found["collector"]["state"] == "ok"
    assert "served at" in found["directory"]["detail"]
    assert found["store"]["state"] == "ok"
    assert found["clock"]["state"] == "ok"
    for each in found.values():
        page, _, _anchor = each["guide"].partition("#")
        assert page.startswith("docs/guides/"), each


def test_what_cannot_be_reached_is_wrong_and_names_its_page(tmp_path: Path) -> None:
    ran = callmeter("doctor", "--url", "http://127.0.0.1:9", "-q")
    assert ran.code == 1
    assert ran.out.startswith("WRONG  collector")
    assert "docs/guides/collector.md" in ran.out
    store = callmeter("doctor", "--store", "clickhouse://127.0.0.1:9/callmeter", "--json")
    assert store.code == 1
    assert findings(store.out)["store"]["state"] == "wrong"
    away = callmeter("doctor", "--kafka", "kafka://127.0.0.1:9", "--json")
    assert away.code == 1
    assert findings(away.out)["kafka"]["state"] == "wrong"


def test_a_spool_without_its_process_is_worth_a_look(tmp_path: Path) -> None:
    shelf = tmp_path / "01912d68-783e-7a03-8467-5661c1243ad4"
    shelf.mkdir()
    (shelf / "00000000.seg").write_bytes(b"x" * 1000)
    ran = callmeter("doctor", "--dir", tmp_path / "none", "--spool", tmp_path, "--json")
    assert ran.code == 0
    spool = findings(ran.out)["spool"]
    assert spool["state"] == "notice"
    assert "1,000 bytes of 1 sources" in spool["detail"]
    assert "1 have no process" in spool["detail"]


@pytest.mark.kafka
def test_kafka_topic_by_topic_and_group_by_group(kafka: Broker, topic_prefix: str) -> None:
    url = f"{kafka.url}?prefix={topic_prefix}"
    settings = KafkaSettings.from_url(url)
    none = callmeter("doctor", "--kafka", url, "--json")
    assert none.code == 1
    assert "callmeter topics apply" in findings(none.out)["kafka"]["detail"]

    asyncio.run(apply_topics(settings, partitions=2))
    idle = callmeter("doctor", "--kafka", url, "--json")
    found = findings(idle.out)
    assert idle.code == 1
    assert found["kafka"]["state"] == "ok"
    assert "one copy" in found["topics"]["detail"]
    assert "lag" not in found, found["lag"]
    assert found["meter"]["state"] == "wrong"
    assert found["watch"]["state"] == "notice"
    assert found["sink"]["state"] == "wrong"
    assert found["prices"]["state"] == "notice"

    with started("worker", "--kafka", url, "--metrics", "0") as worker:
        assert worker.stdout is not None
        worker.stdout.readline()
        patience = 60
        while findings(callmeter("doctor", "--kafka", url, "--json").out)["meter"]["state"] != "ok":
            patience -= 1
            assert patience, "the doctor never saw the worker"
        found = findings(callmeter("doctor", "--kafka", url, "--json").out)
        assert found["meter"]["detail"] == "1 at work, 0 records wait in events"
        assert found["prices"]["state"] == "ok"
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(60) == 0


@pytest.mark.kafka
def test_a_topic_with_other_settings_is_told(kafka: Broker, topic_prefix: str) -> None:
    url = f"{kafka.url}?prefix={topic_prefix}"
    settings = KafkaSettings.from_url(url)

    async def make_wrong() -> None:
        admin = make_admin(settings)
        await admin.start()
        wrong = NewTopic(EVENTS.full(topic_prefix), 2, 1, topic_configs={"retention.ms": "1000"})
        await admin.create_topics([wrong])
        await admin.close()

    asyncio.run(make_wrong())
    asyncio.run(apply_topics(settings, partitions=2))
    topics = findings(callmeter("doctor", "--kafka", url, "--json").out)["topics"]
    assert topics["state"] == "wrong"
    assert "message.timestamp.type is CreateTime, not LogAppendTime" in topics["detail"]


def test_the_doctor_serves_what_it_finds(embedded: Pipeline) -> None:
    arguments = ("--dir", embedded.directory, "--url", embedded.url, "--serve", "0", "--every", "1")
    with started("doctor", *arguments, env=environment()) as doctor:
        assert doctor.stdout is not None
        at = re.search(r"http://127\.0\.0\.1:\d+", doctor.stdout.readline())
        assert at is not None

        def scrape() -> dict[tuple[str, ...], float]:
            with urllib.request.urlopen(f"{at[0]}/metrics", timeout=60) as answer:
                text = answer.read().decode()
            return {
                (
                    sample.name.removeprefix("callmeter_doctor_"),
                    *sample.labels.values(),
                ): sample.value
                for family in text_string_to_metric_families(text)
                for sample in family.samples
            }

        embedded.wait(lambda: ("verify_equal",) in scrape())
        found = scrape()
        assert found["verify_equal",] == 1
        assert found["state", "collector"] == 0
        assert found["state", "store"] == 0
        assert abs(found["clock_ahead_seconds", "store"]) < 2
        assert found["look_timestamp_seconds",] > 1.7e9
        with urllib.request.urlopen(f"{at[0]}/readyz", timeout=60) as answer:
            assert answer.status == 200
        ours = {name for name, *_ in found} & {*METRICS}
        assert {"missing_envelopes", "dead_letters_last_hour", "group_lag_records"} <= ours
        doctor.send_signal(signal.SIGTERM)
        assert doctor.wait(60) == 0


def test_every_page_that_a_finding_names_is_there() -> None:
    sources = (ROOT / "producers/callmeter/cli").glob("doctor*.py")
    named = {
        page
        for source in sources
        for page in re.findall(r'"([a-z-]+\.md(?:#[a-z-]+)?)"', source.read_text())
    }
    assert len(named) > 8
    for each in named:
        page, _, anchor = each.partition("#")
        path = ROOT / "docs/guides" / page
        assert path.is_file(), each
        headings = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
        assert not anchor or anchor in {h.lower().replace(" ", "-") for h in headings}, each
