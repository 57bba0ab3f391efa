"""A reader that goes elsewhere amid a fetch: what that fetch brings is not what it asked for."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition

from callmeter.log import kafka_consumer
from callmeter.log.kafka_consumer import KafkaGroupReader
from callmeter.log.kafka_settings import KafkaSettings

PATIENCE_S = 20.0
LATEST = 100


class Client:
    """A client of one partition whose fetches begin and end when the test says so.

    A fetch holds the loop's thread, so nothing else happens there meanwhile.
    """

    def __init__(self, **_: Any) -> None:
        self.at = 0
        self.fetching = threading.Semaphore(0)
        self.fetch = threading.Semaphore(0)
        self.ended = False

    async def start(self) -> None:
        """At once."""

    async def stop(self) -> None:
        """At once."""

    def assign(self, partitions: list[TopicPartition]) -> None:
        self._assigned = set(partitions)

    def assignment(self) -> set[TopicPartition]:
        return self._assigned

    def pause(self, *_: TopicPartition) -> None:
        """Fetches are the test's care."""

    resume = pause

    def seek(self, _: TopicPartition, offset: int) -> None:
        self.at = offset

    async def position(self, _: TopicPartition) -> int:
        return self.at

    async def getmany(self, *partitions: TopicPartition, timeout_ms: int) -> dict[Any, list[Any]]:
        self.fetching.release()
        if self.ended:
            await asyncio.sleep(0.01)
        else:
            assert self.fetch.acquire(timeout=PATIENCE_S)
        first, self.at = self.at, self.at + 2
        return {tp: [message(tp.partition, n) for n in range(first, self.at)] for tp in partitions}


def message(partition: int, offset: int) -> SimpleNamespace:
    return SimpleNamespace(partition=partition, offset=offset, timestamp=0, key=b"k", value=b"v")


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Client:
    made = Client()

    async def partitions_of(_client: Any, _topic: str) -> set[int]:
        return {0}

    monkeypatch.setattr(kafka_consumer, "_consumer", lambda **_: made)
    monkeypatch.setattr(kafka_consumer, "partitions_of", partitions_of)
    return made


@pytest.fixture
def reader(client: Client) -> Iterator[KafkaGroupReader]:
    settings = KafkaSettings.from_url("kafka://127.0.0.1:1", {})
    made = KafkaGroupReader(settings, "metered", group="sink", log_id="log", whole=True)
    yield made
    client.ended = True
    client.fetch.release(1_000)
    made.close()


def offsets(reader: KafkaGroupReader, at: int) -> list[int]:
    return [r.offset for r in reader.read(0, at, max_records=10, max_bytes=10**6)]


def test_a_fetch_of_the_place_before_is_not_taken_for_the_place_asked(
    client: Client, reader: KafkaGroupReader
) -> None:
    assert offsets(reader, LATEST) == []  # sought
    assert client.fetching.acquire(timeout=PATIENCE_S)
    # Amid that fetch another writer goes back to where the store is.
    assert offsets(reader, 7) == []
    client.fetch.release()
    assert client.fetching.acquire(timeout=PATIENCE_S)  # the first fetch has been taken in
    found = offsets(reader, 7)
    while not found:
        client.fetch.release()
        assert client.fetching.acquire(timeout=PATIENCE_S)
        found = offsets(reader, 7)
    assert found == [7, 8]
