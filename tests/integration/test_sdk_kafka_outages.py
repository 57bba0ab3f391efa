"""A Kafka that is killed, stalls and comes late: the host notices nothing, and all adds up."""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from callmeter.log.kafka_server import KafkaServer
from callmeter.schema.envelope import decode_header, split_lines
from support.kafka_events import EventsTopic
from support.steady_host import SLACK, SteadyHost

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

CAP = 512 * 1024
Start = Callable[..., KafkaServer]


def counted(topic: EventsTopic) -> Counter[str]:
    """Each metric at the consumer, but envelopes that came again, which must be the same bytes."""
    seen: dict[tuple[str, int], bytes] = {}
    names: Counter[str] = Counter()
    for value in topic.values():
        head, *lines = split_lines(value)
        header = decode_header(head)
        key = (header.source, header.seq)
        assert seen.setdefault(key, value) == value
        if seen[key] is value:
            names.update(orjson.loads(line)["name"] for line in lines)
    return names


def settings(tmp_path: Path, mode: str) -> dict[str, Any]:
    spool = {"spool_dir": str(tmp_path / "spool"), "durable": mode == "durable"}
    return {"max_queue_bytes": CAP, "timeout_s": 3.0, **({} if mode == "memory" else spool)}


@pytest.mark.parametrize("mode", ["durable", "spool"])
def test_a_broker_killed_and_stalled_mid_run_loses_nothing(
    own_kafka: Start, topic_prefix: str, tmp_path: Path, mode: str
) -> None:
    server = own_kafka()
    with (
        EventsTopic(server.bootstrap, topic_prefix) as topic,
        SteadyHost(topic.url, **settings(tmp_path, mode)) as host,
    ):
        host.go_on(1.0)
        server.kill()
        host.go_on(1.0)
        server.restart()
        host.go_on(1.0)
        assert server.pid is not None
        os.kill(server.pid, signal.SIGSTOP)
        host.go_on(5.0)
        os.kill(server.pid, signal.SIGCONT)
        host.go_on(1.0)
        result = host.finish()
        assert result.ok, result
        assert (result.accepted, result.delivered) == (host.made, host.made)
        assert host.client.stats().retries > 0
        assert counted(topic) == {f"m{i}": 1 for i in range(host.made)}
        assert host.most_bytes <= CAP * SLACK


def test_memory_alone_drops_what_it_counts(
    own_kafka: Start, topic_prefix: str, tmp_path: Path
) -> None:
    server = own_kafka()
    with (
        EventsTopic(server.bootstrap, topic_prefix) as topic,
        SteadyHost(topic.url, per_s=20_000, **settings(tmp_path, "memory")) as host,
    ):
        host.go_on(0.5)
        server.kill()
        while not host.client.stats().dropped:
            host.go_on(0.05)
        server.restart()
        result = host.finish()
        dropped = sum(result.dropped.values())
        assert result.pending == 0
        assert host.made == result.accepted == result.delivered + dropped
        names = counted(topic)
        assert set(names.values()) == {1}
        # A batch that the broker took as it died was never acknowledged: it may be in both.
        assert result.delivered <= len(names) <= result.delivered + CAP // 100
        assert host.most_bytes <= CAP * SLACK


def test_a_broker_that_comes_late(own_kafka: Start, topic_prefix: str, tmp_path: Path) -> None:
    server = own_kafka()
    with EventsTopic(server.bootstrap, topic_prefix) as topic:
        server.kill()
        with SteadyHost(topic.url, **settings(tmp_path, "spool")) as host:
            host.go_on(1.5)
            assert host.client.stats().delivered == 0
            back = threading.Thread(target=server.restart)
            back.start()
            result = host.finish()
            back.join()
            assert result.ok, result
            assert counted(topic) == {f"m{i}": 1 for i in range(host.made)}
