"""A shared budget followed straight from Kafka."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable

import msgspec
import pytest

from callmeter.clock import SystemClock
from callmeter.log.kafka_admin import apply_topics
from callmeter.log.kafka_appender import KafkaAppender
from callmeter.log.kafka_settings import KafkaSettings
from callmeter.log.record import NewRecord
from callmeter.schema.budgets import Budget, encode_budget
from callmeter.schema.status import BudgetStatus, status_key
from callmeter.schema.windows import window_at
from callmeter.sdk.budget.kafka_feed import KafkaFeed
from callmeter.sdk.budget.shared import SharedBudget
from support.kafka_server import Broker

pytestmark = [pytest.mark.kafka, pytest.mark.slow]


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline, "did not happen within 30 s"
        time.sleep(0.05)


def status(spend: int, included: dict[int, int]) -> bytes:
    now_us = SystemClock().now_us()
    start_us, end_us = window_at("month", now_us)
    return msgspec.json.encode(
        BudgetStatus(
            v=1, log="l", budget="b", version=1, basis=1, entity="", window="month", state="ok",
            action="stop", start_us=start_us, end_us=end_us, spend_pico=str(spend), tokens=0,
            calls=0, at_us=now_us, included=included,
        )
    )  # fmt: skip


def test_definition_and_status_are_followed(kafka: Broker, topic_prefix: str):
    url = f"{kafka.url}?prefix={topic_prefix}"
    settings = KafkaSettings.from_url(url)
    budget = Budget(id="b", limit_pico="100", window="month", action="stop")

    async def publish(*records: NewRecord) -> None:
        appender = await KafkaAppender.start(settings)
        try:
            await appender.append(list(records))
        finally:
            await appender.close()

    asyncio.run(apply_topics(settings, partitions=3))
    asyncio.run(
        publish(
            NewRecord("budgets", b"b", encode_budget(budget)),
            NewRecord("budget-status", status_key("b", ""), status(7, {0: 1})),
            NewRecord("budget-status", status_key("c", ""), b"of another budget"),
        )
    )
    shared = SharedBudget("b", SystemClock(), 60.0)
    feed = KafkaFeed(url, None)
    thread = threading.Thread(target=feed.follow, args=(shared,))
    thread.start()
    try:
        until(lambda: shared.fresh)
        assert shared.standing().spent == 7
        asyncio.run(publish(NewRecord("budget-status", status_key("b", ""), status(9, {0: 2}))))
        until(lambda: shared.standing().spent == 9)
        asyncio.run(publish(NewRecord("budgets", b"b", None)))
        until(lambda: not shared.fresh)
    finally:
        feed.stop()
        thread.join(30)
    assert not thread.is_alive()
