"""Steady traffic for the toy step, and what its outputs tell of stalls."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from types import TracebackType
from typing import Self

from callmeter.log.kafka_appender import KafkaAppender
from callmeter.log.record import NewRecord
from support.toy_kafka import ToyKafka
from support.toy_step import toy_records

KEYS = 40


class SteadyTraffic:
    """Appends a batch every 30 ms to every partition, from entry to exit; ``sent`` after it."""

    def __init__(self, toy: ToyKafka) -> None:
        self._toy = toy
        self._enough = threading.Event()
        self._thread = ThreadPoolExecutor(1)
        self.sent: list[NewRecord] = []

    async def _send(self) -> None:
        appender = await KafkaAppender.start(self._toy.settings, timeout_s=60)
        while not self._enough.is_set():
            batch = toy_records(KEYS, keys=KEYS, first=len(self.sent))
            await appender.append(batch)
            self.sent += batch
            await asyncio.sleep(0.03)
        await appender.close()

    def __enter__(self) -> Self:
        self._running = self._thread.submit(lambda: asyncio.run(self._send()))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._enough.set()
        self._thread.shutdown(wait=False)
        self._running.result(90)


def longest_stall_s(toy: ToyKafka, since_us: int, until_us: int) -> float:
    """The longest time between two checkpoints of any partition that has traffic, in seconds."""
    longest_us = 0
    for partition in range(toy.partitions):
        times = [r.timestamp_us for r in toy.read("metered", partition)]
        within = [since_us, *(t for t in times if since_us <= t <= until_us), until_us]
        if len(within) > 2:
            longest_us = max(longest_us, *(b - a for a, b in pairwise(within)))
    return longest_us / 1e6
