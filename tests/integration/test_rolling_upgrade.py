"""A fleet is upgraded while traffic goes on: workers one by one, then the sink on an older store.

The workers before wrote state of the format before, the sink before had schema 3, without tables of
alerts. Nothing is lost and nothing stands twice: envelopes, calls, money to the pico, alerts.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from pathlib import Path

import orjson
import pytest

from callmeter.log.kafka_admin import apply_topics
from callmeter.log.kafka_settings import KafkaSettings
from callmeter.log.kafka_state import publish
from callmeter.schema.budgets import encode_budget
from callmeter_sinks.clickhouse.opening import open_store
from callmeter_sinks.clickhouse.store import Store
from callmeter_sinks.verify import verify
from support.kafka_server import Broker
from support.older_release import OLDER_FORMAT
from support.pipeline_alerts import budgets, expect_budgets
from support.pipeline_events import counted
from support.pipeline_fleet import Fleet
from support.pipeline_log import Listener, committed, once
from support.pipeline_traffic import Traffic, now_us
from support.stored import expected, stored

pytestmark = [pytest.mark.kafka, pytest.mark.slow]
PARTITIONS = 4
GAP_S = "3"


def commands(url: str, store: str) -> dict[str, list[str]]:
    """Every process that takes part, by name."""
    older, newer = (["support.older_release", release, GAP_S] for release in ("older", "today"))
    worker = ["worker", "--kafka", url]
    sink = ["sink", "--kafka", url, "--store", store]
    return {
        "older-a": [*older, *worker],
        "older-b": [*older, *worker],
        "watch": ["callmeter", *worker, "--watch"],
        "older-sink": [*older, *sink],
        "newer-a": [*newer, *worker],
        "newer-b": [*newer, *worker],
        "newer-sink": ["callmeter", *sink, "--serve", "0"],
    }


def state_formats(bootstrap: str, prefix: str) -> set[int]:
    """Of the rows of sources as they are now."""
    rows = {r.key: r.value for r in committed(bootstrap, f"{prefix}.meter-state", PARTITIONS)}
    return {orjson.loads(row)["v"] for key, row in rows.items() if key.startswith(b"s:") and row}


def served_at(fleet: Fleet) -> str:
    """The URL of the newer sink's store."""
    said = re.search(r"clickhouse://\S+", fleet.log_of("newer-sink").read_text())
    assert said is not None, fleet.said()
    return said[0]


def differences(store: Store, should: dict[str, object]) -> dict[str, tuple[object, object]]:
    """Figures that are not what was sent, by raw rows, rollups, histograms or control totals."""
    found = stored(store)
    return {key: (found[key], wanted) for key, wanted in should.items() if found[key] != wanted}


def told(store: Store) -> tuple[int, int]:
    """Rows of alerts, and ids."""
    rows, ids = store.query("SELECT count(), uniqExact(id) FROM alerts").rows[0]
    return int(rows), int(ids)


def test_workers_and_sink_are_replaced_under_load(
    kafka: Broker, topic_prefix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url, store_url = f"{kafka.url}?prefix={topic_prefix}", f"chdb:{tmp_path / 'store'}"
    settings = KafkaSettings.from_url(url, {})
    log_id = asyncio.run(apply_topics(settings, partitions=PARTITIONS)).log_id
    definitions = budgets(now_us())
    rows = {name.encode(): encode_budget(budget) for name, budget in definitions.items()}
    asyncio.run(publish(settings, "budgets", dict(rows)))

    def formats() -> set[int]:
        return state_formats(kafka.bootstrap, topic_prefix)

    with (
        Listener(kafka.bootstrap, topic_prefix, PARTITIONS) as heard,
        Fleet(
            commands(url, store_url),
            tmp_path,
            at_first=("older-a", "older-b", "watch", "older-sink"),
        ) as fleet,
    ):

        def moves() -> None:
            fleet.until(heard.moved(heard.metered), lambda: "nothing is metered")

        traffic = Traffic(settings, PARTITIONS, log_id, 1, heard.ids.__contains__, parts=False)
        began_s = time.monotonic()
        traffic.start()
        moves()
        assert formats() == {OLDER_FORMAT}
        # The first worker is replaced.
        fleet.start("newer-a")
        fleet.stop("older-a")
        fleet.until(lambda: max(formats()) > OLDER_FORMAT, lambda: "no newer state is written")
        # The newer one goes away: the older one that is left gets state which it may not read.
        fleet.stop("newer-a")
        refused = fleet.wait("older-b")
        fleet.start("newer-b")
        # The sink is replaced on the store as a kill has left it.
        fleet.remove("older-sink")
        fleet.start("newer-sink")
        moves()
        traffic.finish(fleet.supervise)
        wanted = traffic.expected
        expect_budgets(wanted, traffic.sent, definitions, now_us())
        fleet.until(
            lambda: wanted.certain.keys() <= heard.ids.keys(),
            lambda: f"missing: {wanted.certain.keys() - heard.ids.keys()}",
        )
        took_s = time.monotonic() - began_s
        fleet.stop("newer-b", "watch")
        # Nobody writes any more: the rest is the sink's.
        metered = committed(kafka.bootstrap, f"{topic_prefix}.metered", PARTITIONS)
        alerts = committed(kafka.bootstrap, f"{topic_prefix}.alerts", PARTITIONS)
        events = committed(kafka.bootstrap, f"{topic_prefix}.events", PARTITIONS)
        ids = Counter(str(orjson.loads(alert.value)["id"]) for alert in alerts)
        truth = counted(traffic.sent, len(events), len({event.value for event in events}))
        should = expected(truth)
        store = open_store(served_at(fleet))
        try:
            fleet.until(
                lambda: differences(store, should) == {} and told(store)[0] >= len(ids),
                lambda: f"{told(store)} alerts of {len(ids)}, and {differences(store, should)}",
            )
            checks = [check.what for check in verify(store).checks if not check.equal]
            twice = told(store)
        finally:
            store.close()
    with capsys.disabled():
        print(
            f"\n{len(events):,} envelopes, {truth.counts['duplicates']} of them twice, and "
            f"{len(ids)} alerts over an upgrade of {took_s:.0f} s"
        )
    assert refused == 78, fleet.said()
    last_words = fleet.log_of("older-b").read_text().strip().splitlines()[-1]
    assert f"has format {OLDER_FORMAT + 1}" in last_words
    assert OLDER_FORMAT not in formats()
    assert fleet.ended_themselves == 0, fleet.said()
    once(metered)
    assert ids.keys() - wanted.possible == wanted.certain.keys()
    assert max(ids.values()) == 1
    assert twice == (len(ids), len(ids))
    assert [what for what in checks if "headers" not in what] == []  # these count nothing
