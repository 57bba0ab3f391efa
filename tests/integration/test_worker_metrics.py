"""``callmeter worker --metrics`` over a real Kafka: ready, measured, and gone with the worker."""

from __future__ import annotations

import asyncio
import re
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Callable

import pytest
from prometheus_client.parser import text_string_to_metric_families

from callmeter.clock import SystemClock
from callmeter.log.kafka_admin import apply_topics
from callmeter.log.kafka_appender import KafkaAppender
from callmeter.log.kafka_settings import KafkaSettings
from callmeter.log.record import NewRecord
from support.cli import started
from support.kafka_server import Broker
from support.metering import call_end, envelope, source

pytestmark = pytest.mark.kafka


def status_of(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as answer:
        with answer:
            return answer.code


def scrape(url: str) -> dict[tuple[str, ...], float]:
    """(name, its label but the stage) → value, without the buckets of histograms."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=30) as answer:
        text = answer.read().decode()
    return {
        (
            s.name.removeprefix("callmeter_worker_"),
            *(value for name, value in s.labels.items() if name != "stage"),
        ): s.value
        for family in text_string_to_metric_families(text)
        for s in family.samples
        if "le" not in s.labels
    }


def until(condition: Callable[[], bool], patience_s: float = 90) -> None:
    deadline_s = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.2)


def test_a_worker_is_measured(kafka: Broker, topic_prefix: str) -> None:
    url = f"{kafka.url}?prefix={topic_prefix}"
    settings = KafkaSettings.from_url(url)
    asyncio.run(apply_topics(settings, partitions=2))

    async def send() -> None:
        now_us = SystemClock().now_us()
        values = [
            envelope([call_end(started_us=now_us, ts_us=now_us), b"?"], seq=seq, sent_us=now_us)
            for seq in (0, 1, 1, 7)
        ]
        appender = await KafkaAppender.start(settings)
        await appender.append([NewRecord("events", source(1).encode(), v) for v in values])
        await appender.close()

    with started("worker", "--kafka", url, "--metrics", "0") as worker:
        assert worker.stdout is not None
        served = re.search(r"http://127\.0\.0\.1:\d+", worker.stdout.readline())
        assert served is not None
        at = served[0]
        assert status_of(f"{at}/healthz") == 200
        until(lambda: status_of(f"{at}/readyz") == 200)
        asyncio.run(send())
        until(lambda: scrape(at)["records_total",] == 4)
        until(lambda: scrape(at).get(("event_to_output_seconds_count",)) == 4)
        found = scrape(at)
        assert found["envelopes_total", "accepted"] == 3
        assert found["envelopes_total", "duplicate"] == 1
        assert found["dead_letters_total", "bad_json"] == 3
        assert found["sequence_envelopes_total", "missing"] == 5
        assert found["partitions", "restored"] == 2
        assert found["transactions_total", "committed"] >= 1
        until(lambda: sum(scrape(at).get(("state_rows", p), 0) for p in "01") == 2)
        until(lambda: sum(scrape(at).get(("missing_envelopes", p), 0) for p in "01") == 5)
        lags = [scrape(at).get(("lag_records", p), 0) for p in "01"]
        assert lags == [0, 0]
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(60) == 0
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(f"{at}/healthz", timeout=5)
