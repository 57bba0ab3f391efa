"""Which Kafka the tests speak to: the one they are told, one they start, or none.

``CALLMETER_TEST_KAFKA`` (``host:port`` or ``kafka://host:port``) names a running one. Without it an
Apache Kafka is started once a session. ``CALLMETER_REQUIRE_KAFKA=1`` turns "cannot" into a failure,
so that CI never passes by skipping.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest
from confluent_kafka import Producer

from callmeter.errors import CallmeterError
from callmeter.log.kafka_jars import fetch_jars, kafka_home, missing_tools
from callmeter.log.kafka_server import KafkaServer

SKIP_PREFIX = "needs a real Kafka"


@dataclass(frozen=True, slots=True)
class Broker:
    """How to reach a broker. ``real`` is false for librdkafka's in-process one."""

    bootstrap: str
    real: bool = True

    @property
    def url(self) -> str:
        """``kafka://host:port``."""
        return f"kafka://{self.bootstrap}"


def required() -> bool:
    """Whether a missing Kafka fails the tests that need one."""
    return os.environ.get("CALLMETER_REQUIRE_KAFKA", "") not in ("", "0")


def told() -> Broker | None:
    """The broker that the environment names."""
    address = os.environ.get("CALLMETER_TEST_KAFKA", "").removeprefix("kafka://").strip("/")
    return Broker(address) if address else None


def cannot_start() -> str | None:
    """Why no Kafka can be started here, or None. Fetches the jars."""
    home = kafka_home()
    lacking = missing_tools(home)
    if lacking is not None:
        return lacking
    try:
        fetch_jars(home)
    except CallmeterError as exc:
        return str(exc)
    return None


def skip_or_fail(reason: str) -> None:
    """End the asking test: skipped and listed, or failed where a Kafka is required."""
    text = f"{SKIP_PREFIX}: {reason}"
    if required():
        pytest.fail(f"{text} (CALLMETER_REQUIRE_KAFKA is set)", pytrace=False)
    pytest.skip(text)


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A real Kafka for the whole session, shared: use ``topic_prefix``, never stop it."""
    named = told()
    if named is not None:
        yield named
        return
    reason = cannot_start()
    if reason is not None:
        skip_or_fail(reason)
    with KafkaServer(tmp_path_factory.mktemp("kafka"), quick=True) as server:
        yield Broker(server.bootstrap)


@pytest.fixture(scope="session")
def quick_kafka(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Broker]:
    """A shared Kafka that takes sessions of a second, and so soon gives on what a dead member had.

    The session's own; one that was named may not take them, then another is started beside it.
    """
    if told() is None:
        yield request.getfixturevalue("kafka")
        return
    reason = cannot_start()
    if reason is not None:
        skip_or_fail(reason)
    with KafkaServer(tmp_path_factory.mktemp("quick-kafka"), quick=True) as server:
        yield Broker(server.bootstrap)


@pytest.fixture
def own_kafka(tmp_path: Path) -> Iterator[Callable[..., KafkaServer]]:
    """Start a Kafka of the test's own, to kill, pause and restart: ``own_kafka(**properties)``.

    Dots of property names are written as double underscores. Never an external one.
    """
    reason = cannot_start()
    if reason is not None:
        skip_or_fail(reason)
    with ExitStack() as stack:

        def start(**properties: str) -> KafkaServer:
            named = {key.replace("__", "."): value for key, value in properties.items()}
            directory = tmp_path / f"kafka-{uuid4().hex[:8]}"
            server = KafkaServer(directory, properties=named, quick=True)
            return stack.enter_context(server)

        yield start


@pytest.fixture(scope="session")
def wire_kafka(request: pytest.FixtureRequest) -> Iterator[Broker]:
    """A broker for tests of the wire format: the real one, else librdkafka's in-process broker.

    The latter keeps about 5 MB a partition and makes topics on first use; it cannot create them.
    """
    if told() is not None or required() or cannot_start() is None:
        yield request.getfixturevalue("kafka")
        return
    holder = Producer({"bootstrap.servers": "none:1", "test.mock.num.brokers": 1})
    brokers = holder.list_topics(timeout=10).brokers
    broker = next(iter(brokers.values()))
    yield Broker(f"{broker.host}:{broker.port}", real=False)
    holder.flush(0)


@pytest.fixture
def topic_prefix() -> str:
    """A prefix of topics, groups and transactional ids that no other test uses."""
    return f"t{uuid4().hex[:10]}"
