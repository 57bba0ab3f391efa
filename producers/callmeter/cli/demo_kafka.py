"""The demo's distributed form: a Kafka of its own, two workers and a sink as processes."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from callmeter.errors import CallmeterError

if TYPE_CHECKING:
    from callmeter_sinks.clickhouse.store import Store

WORKERS = 2
PARTITIONS = 4
_STOP_S = 30.0


@contextmanager
def pipeline(home: Path, *, quiet: bool) -> Iterator[tuple[str, Store, Callable[[], None]]]:
    """Start everything under ``home``: (Kafka URL, the sink's store for reading, health check).

    Ends every process it started, in the order of the flow. ``ConfigError`` without Java or Maven.
    """
    from callmeter.log.kafka_admin import apply_topics
    from callmeter.log.kafka_server import KafkaServer
    from callmeter.log.kafka_settings import KafkaSettings
    from callmeter_sinks.clickhouse.opening import open_store

    def say(what: str) -> None:
        if not quiet:
            click.echo(what, err=True)

    with ExitStack() as stack:
        say("starting Apache Kafka (its jars are fetched once)")
        kafka = stack.enter_context(KafkaServer(home / "kafka", quick=True))
        asyncio.run(apply_topics(KafkaSettings.from_url(kafka.url), partitions=PARTITIONS))
        say(f"starting {WORKERS} workers and a sink on {kafka.url}")
        store_url = f"chdb:{home / 'store'}"
        sink = _Process(stack, home, "sink", "--kafka", kafka.url, "--store", store_url,
                        "--serve", "0")  # fmt: skip
        workers = [
            _Process(stack, home, f"worker-{n}", "--kafka", kafka.url) for n in range(WORKERS)
        ]
        store = open_store(sink.first_line().rpartition(" ")[2])
        stack.callback(store.close)

        def healthy() -> None:
            for process in (*workers, sink):
                process.check()

        yield kafka.url, store, healthy


class _Process:
    """A callmeter command as a process; ended with SIGTERM, then SIGKILL, when the stack closes."""

    def __init__(self, stack: ExitStack, home: Path, name: str, *arguments: str) -> None:
        self._name = name
        self._errors = home / f"{name}.log"
        command = name.partition("-")[0]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "callmeter", command, *arguments],
            stdout=subprocess.PIPE,
            stderr=stack.enter_context(self._errors.open("wb")),
        )
        stack.callback(self._stop)

    def first_line(self) -> str:
        """The first line it prints; raises what it said instead."""
        stdout = self._process.stdout
        line = stdout.readline().decode().strip() if stdout else ""
        if not line:
            self._process.wait(_STOP_S)
            self.check()
        return line

    def check(self) -> None:
        if self._process.poll() is not None:
            tail = self._errors.read_text(errors="replace").strip().splitlines()[-1:]
            raise CallmeterError(
                f"{self._name} ended with {self._process.returncode}: {' '.join(tail)}"
            )

    def _stop(self) -> None:
        self._process.terminate()
        try:
            self._process.communicate(timeout=_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
