"""The launcher of a real Kafka: data outlive a crash, and no JVM outlives its parent."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient, NewTopic

from callmeter.errors import UnreachableError
from callmeter.log.kafka_server import KafkaServer, serves_metadata
from support.kafka_server import Broker

pytestmark = [pytest.mark.kafka, pytest.mark.slow]


def create_topic(bootstrap: str, name: str) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap})
    for future in admin.create_topics([NewTopic(name, 1)]).values():
        future.result(timeout=30)


def produce(bootstrap: str, topic: str, value: bytes) -> None:
    producer = Producer({"bootstrap.servers": bootstrap, "acks": "all"})
    producer.produce(topic, value)
    assert producer.flush(30) == 0


def values(bootstrap: str, topic: str, count: int) -> list[bytes]:
    consumer = Consumer(
        {"bootstrap.servers": bootstrap, "group.id": topic, "auto.offset.reset": "earliest"}
    )
    consumer.subscribe([topic])
    try:
        return [message.value() for message in consumer.consume(count, timeout=30)]
    finally:
        consumer.close()


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def wait_for(what: Callable[[], bool], timeout_s: float = 30.0) -> bool:
    deadline = time.monotonic() + timeout_s
    while not what():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def test_the_shared_broker_carries_records(kafka: Broker, topic_prefix: str) -> None:
    create_topic(kafka.bootstrap, topic_prefix)
    produce(kafka.bootstrap, topic_prefix, b"one")
    assert values(kafka.bootstrap, topic_prefix, 1) == [b"one"]


def test_what_was_acknowledged_outlives_a_kill(
    own_kafka: Callable[..., KafkaServer], topic_prefix: str
) -> None:
    server = own_kafka()
    address, first_pid = server.bootstrap, server.pid
    create_topic(address, topic_prefix)
    produce(address, topic_prefix, b"before")

    server.kill()
    assert server.pid is None
    assert not serves_metadata(server.port)

    server.restart()
    assert server.bootstrap == address
    assert server.pid != first_pid
    produce(address, topic_prefix, b"after")
    assert values(address, topic_prefix, 2) == [b"before", b"after"]


def test_a_caller_can_lay_settings_over_the_template(
    own_kafka: Callable[..., KafkaServer], topic_prefix: str
) -> None:
    server = own_kafka(auto__create__topics__enable="true")
    produce(server.bootstrap, topic_prefix, b"made on first use")
    assert values(server.bootstrap, topic_prefix, 1) == [b"made on first use"]


def test_it_dies_with_a_parent_that_was_killed(kafka: Broker, tmp_path: Path) -> None:
    code = (
        "import sys; from callmeter.log.kafka_server import KafkaServer\n"
        f"server = KafkaServer({str(tmp_path)!r}); server.start()\n"
        "print(server.pid, flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert is_alive(pid)
        parent.kill()
    assert wait_for(lambda: not is_alive(pid))


def test_a_start_that_fails_shows_why(kafka: Broker, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UnreachableError, match="Address already in use"):
            KafkaServer(tmp_path, port).start()
