"""The main job over a real Kafka: two Faust workers and a sink, killed halfway and restarted."""

from __future__ import annotations

import asyncio
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from callmeter.log.kafka_admin import apply_topics, read_log_id
from callmeter.log.kafka_settings import KafkaSettings
from callmeter.log.kafka_state import open_partition
from callmeter.log.position import POSITION_KEY, decode_position
from support.cli import PRICED, TRACE, callmeter, environment, query
from support.kafka_server import Broker

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

PARTITIONS = 4
CALLS, COST = 19_366, "5.8074795"


class Pipeline:
    """Two workers and a sink as processes; any of them can be killed and started again."""

    def __init__(self, home: Path, url: str) -> None:
        self.home = home
        self.url = url
        self.kills = 0
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str) -> None:
        command = [sys.executable, "-m", "callmeter", name.partition("-")[0], "--kafka", self.url]
        if name == "sink":
            command += ["--store", f"chdb:{self.home / 'store'}"]
        with (self.home / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                command, stdout=log, stderr=log, env=environment()
            )

    def kill(self, name: str) -> None:
        """SIGKILL, and start again."""
        process = self._processes[name]
        assert process.poll() is None, f"{name} ended by itself: {self.said(name)}"
        process.kill()
        process.wait()
        self.kills += 1
        self.start(name)

    def stop(self, *names: str) -> None:
        for name in names:
            self._processes[name].send_signal(signal.SIGTERM)
        for name in names:
            code = self._processes.pop(name).wait(60)
            assert code == 0, f"{name} ended with {code}: {self.said(name)}"

    def said(self, name: str) -> str:
        return (self.home / f"{name}.log").read_text()[-2000:]

    def end(self) -> None:
        for process in self._processes.values():
            process.kill()
            process.wait()


@contextmanager
def started(home: Path, url: str, *names: str) -> Iterator[Pipeline]:
    pipeline = Pipeline(home, url)
    try:
        for name in names:
            pipeline.start(name)
        yield pipeline
    finally:
        pipeline.end()


def wait_metered(url: str, patience_s: float = 120) -> None:
    """Until the workers' committed positions are at the end of the log."""
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        found = asyncio.run(_behind(KafkaSettings.from_url(url)))
        if found == 0:
            return
        time.sleep(0.5)
    raise AssertionError(f"the workers are still {found} envelopes behind")


async def _behind(settings: KafkaSettings) -> int:
    behind = 0
    log_id = await read_log_id(settings)
    for partition in range(PARTITIONS):
        async with open_partition(settings, "meter-state", partition) as state:
            rows = await state.rows()
        async with open_partition(settings, "events", partition) as events:
            _, end = await events.offsets()
        value = rows.get(POSITION_KEY)
        next_offset = 0 if value is None else decode_position(value, log_id)
        behind += end - (next_offset or 0)
    return behind


def test_killed_workers_and_sink_change_nothing(
    kafka: Broker, topic_prefix: str, tmp_path: Path
) -> None:
    url = f"{kafka.url}?prefix={topic_prefix}"
    asyncio.run(apply_topics(KafkaSettings.from_url(url), partitions=PARTITIONS))
    rnd = random.Random(7)
    with started(tmp_path, url, "worker-0", "worker-1", "sink") as pipeline:
        # At this pace the trace takes about twelve seconds, so the kills fall inside.
        replay = subprocess.Popen(
            [sys.executable, "-m", "callmeter", "replay", TRACE, *PRICED, "--kafka", url,
             "--speed", "300", "-q"],
            env=environment(),
        )  # fmt: skip
        try:
            time.sleep(6)
            for name in ("worker-0", "sink", "worker-1", "sink"):
                pipeline.kill(name)
                time.sleep(rnd.uniform(0.5, 1.5))
            assert replay.wait(120) == 0
        finally:
            replay.kill()
            replay.wait()
        # Sent once more, whole: every envelope of it is a duplicate.
        again = callmeter("replay", TRACE, *PRICED, "--kafka", url)
        assert again.code == 0, again.err
        wait_metered(url)
        pipeline.stop("worker-0", "worker-1")
        assert pipeline.kills == 4
    # Leaving the block has killed the sink for good, in the middle of whatever it did.
    store = f"chdb:{tmp_path / 'store'}"
    drained = callmeter("sink", "--kafka", url, "--store", store, "--drain")
    assert drained.code == 0, drained.err

    totals = callmeter("report", "--store", store, "--json").json()["totals"]
    assert totals["calls"] == CALLS
    assert totals["input_tokens"] == 22_361_870
    assert totals["output_tokens"] == 4_088_665
    assert totals["cost_usd"] == COST
    verified = callmeter("verify", "--store", store, "--json")
    assert verified.code == 0, verified.out
    assert verified.json()["equal"] is True
    twice = "SELECT count(), uniqExact(log_id, partition, origin, idx) FROM calls"
    assert query(tmp_path, twice) == [[CALLS, CALLS]]
    ledger = dict(query(tmp_path, "SELECT verdict, count() FROM envelopes GROUP BY verdict"))
    assert ledger == {"accepted": 97, "duplicate": 97}
