"""Live traffic of several sources over Kafka: duplicates, reordering, late events and gaps by a
seed, and a few sources with a part to play. Every envelope is sent until it is acknowledged.

Envelopes that are to arrive out of order lie in one batch of Kafka, which is written whole or not
at all: so no kill can leave the gap between them open for longer than it takes to read the next
record, and whether it is told of does not depend on who was faster.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import orjson
from aiokafka.errors import KafkaError

from callmeter.ids import uuid7
from callmeter.log.kafka_clients import make_producer
from callmeter.log.kafka_settings import KafkaSettings
from callmeter.log.partitioner import partition_for
from callmeter.schema.envelope import Header, encode
from support.pipeline_alerts import REFUNDED_PICO, Expected, identity, month_of
from support.pipeline_events import PROJECT, Event, Events, Sent

SERVICES = ("api", "api", "api", "batch", "batch", "failing", "slow")
_PACE_S = 0.03
_ACK_S = 15.0
_MAX_FILLED = 4
#: An envelope group: in the order in which it is appended, as one batch.
Group = list[bytes]


class Source:
    """One producer process, as far as the log can tell."""

    def __init__(self, service: str) -> None:
        self.id = uuid7()
        self.service = service
        self.seq = 0
        self.sent: list[Group] = []

    def envelope(self, lines: list[bytes], *, last: bool = False, ahead_us: int = 0) -> bytes:
        """The next envelope."""
        value = self.at(self.seq, lines, last=last, ahead_us=ahead_us)
        self.seq += 1
        return value

    def at(self, seq: int, lines: list[bytes], *, last: bool = False, ahead_us: int = 0) -> bytes:
        """The envelope with this number."""
        header = Header(
            source=self.id, seq=seq, n=len(lines), sent_us=now_us() + ahead_us, project=PROJECT,
            service=self.service, last=last,
        )  # fmt: skip
        return encode(header, lines)


class Traffic:
    """Runs on a thread from ``start`` to ``finish``. ``is_said`` tells whether an alert was seen.

    ``injected`` counts duplicates, reordered envelopes, late events and gaps; ``resent`` those
    groups whose acknowledgement a fault took away. ``silent``: one source falls silent for good,
    and is told of after a minute. ``parts``: without them no source has a part to play.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        partitions: int,
        log_id: str,
        seed: int,
        is_said: Callable[[str], bool],
        *,
        silent: bool = False,
        parts: bool = True,
    ) -> None:
        self.sent = Sent()
        self.expected = Expected()
        self.injected: Counter[str] = Counter()
        self.resent = 0
        self._settings = settings
        self._partitions = partitions
        self._log_id = log_id
        self._is_said = is_said
        self._random = random.Random(seed)
        self._events = Events(seed, self.sent)
        self._sources = [Source(service) for service in SERVICES]
        #: Gaps that are to close: (alert, source, seq).
        self._closing: list[tuple[str, Source, int]] = []
        self._filled = 0
        self._parts: list[Iterator[tuple[Source, Group] | None]] = []
        if parts:
            self._parts += [self._stuck(), self._left(), self._skewed(), self._refunded()]
        if silent:
            self._parts.append(self._silent())
        self._enough = threading.Event()
        self._pool = ThreadPoolExecutor(1)

    def start(self) -> None:
        self._run = self._pool.submit(lambda: asyncio.run(self._send_all()))

    def finish(self, check: Callable[[], None], patience_s: float = 240) -> None:
        """Let every part be played to its end, then close the sources; raises what went wrong."""
        self._enough.set()
        deadline_s = time.monotonic() + patience_s
        while not self._run.done():
            check()
            assert time.monotonic() < deadline_s, f"waits for {self._waits_for()}"
            time.sleep(0.1)
        self._pool.shutdown()
        self._run.result()

    def _waits_for(self) -> list[str]:
        certain = self.expected.certain
        return [what for own, what in certain.items() if not self._is_said(own)]

    # -- sending ---------------------------------------------------------------------------------

    async def _send_all(self) -> None:
        self._producer = await self._connect()
        try:
            while not self._enough.is_set() or self._parts or self._closing:
                for source, group in self._step():
                    await self._deliver(source, group)
                await asyncio.sleep(_PACE_S)
            for source in self._sources:
                await self._deliver(source, [source.envelope([], last=True)])
        finally:
            await self._producer.stop()

    async def _connect(self):
        producer = make_producer(self._settings, acks="all", enable_idempotence=True)
        await producer.start()
        return producer

    async def _deliver(self, source: Source, group: Group) -> None:
        topic = f"{self._settings.prefix}.events"
        key = source.id.encode()
        partition = partition_for(key, self._partitions)
        while True:
            try:
                async with asyncio.timeout(_ACK_S):
                    batch = self._producer.create_batch()
                    for value in group:
                        assert batch.append(key=key, value=value, timestamp=None) is not None
                    batch.close()
                    future = await self._producer.send_batch(batch, topic, partition=partition)
                    await future
                return
            except (KafkaError, TimeoutError):
                # It may be there or not: sent again, it is a duplicate or it is new.
                self.resent += 1
                await self._reconnect()

    async def _reconnect(self) -> None:
        while True:
            try:
                async with asyncio.timeout(_ACK_S):
                    await self._producer.stop()
                    self._producer = await self._connect()
                return
            except (KafkaError, TimeoutError, OSError):
                await asyncio.sleep(0.5)

    # -- what is sent ----------------------------------------------------------------------------

    def _step(self) -> Iterator[tuple[Source, Group]]:
        for part in list(self._parts):
            try:
                move = next(part)
            except StopIteration:
                self._parts.remove(part)
                continue
            if move is not None:
                yield move
        for each in [c for c in self._closing if self._is_said(c[0])]:
            own, source, seq = each
            self._closing.remove(each)
            self.expected.say(f"gap {seq} closed", "gap_closed", own)
            yield source, [source.at(seq, self._events.lines(now_us(), source.service))]
        if not self._enough.is_set():
            source = self._random.choice(self._sources)
            for group in self._groups(source):
                yield source, group

    def _groups(self, source: Source) -> Iterator[Group]:
        """What a source sends now."""
        roll = self._random.random()
        plain = source.service in ("failing", "slow")
        if roll > 0.9 and source.sent:
            again = self._random.choice(source.sent)
            self.injected["duplicates"] += len(again)
            yield again
            return
        if roll > 0.8:
            first = self._lines(source)
            pair = [source.envelope(first), source.envelope(self._lines(source))]
            self.injected["reordered"] += 1
            group = pair[::-1]
        elif roll > 0.76 and not plain:
            group = [source.envelope(self._lines(source, late=True))]
        elif roll > 0.73:
            self._skip(source)
            group = [source.envelope(self._lines(source))]
        else:
            group = [source.envelope(self._lines(source))]
        source.sent = [*source.sent[-50:], group]
        yield group

    def _lines(self, source: Source, *, late: bool = False) -> list[bytes]:
        before = self.sent.late
        lines = self._events.lines(now_us(), source.service, late=late)
        self.injected["late events"] += self.sent.late - before
        return lines

    def _skip(self, source: Source) -> None:
        """An envelope that never comes, or comes when its gap has been told of."""
        seq = source.seq
        source.seq += 1
        own = self.expected.say(f"gap {seq}", "gap", self._log_id, source.id, seq)
        self.injected["gaps"] += 1
        if self._filled < _MAX_FILLED:
            self._filled += 1
            self._closing.append((own, source, seq))

    # -- sources with a part to play: a move a step, None is a pause -----------------------------

    def _begin(self, age_us: int) -> Event:
        self.sent.truth.counts["call_begin"] += 1
        self.sent.truth.counts["events"] += 1
        at = now_us()
        return {
            "kind": "call_begin", "ts_us": at, "started_us": at - age_us, "call_id": uuid7(),
            "trace_id": f"{self._random.getrandbits(128):032x}", "operation": "chat",
        }  # fmt: skip

    def _stuck(self) -> Iterator[tuple[Source, Group] | None]:
        """A call open for 20 minutes, which then ends after all."""
        source = Source("stuck")
        begin = self._begin(20 * 60_000_000)
        own = self.expected.say("stuck", "stuck", self._log_id, source.id, begin["call_id"])
        yield source, [source.envelope([orjson.dumps(begin)])]
        for _ in self._until(own):
            self.sent.truth.counts["events"] += 1
            beat = {"kind": "heartbeat", "ts_us": now_us(), "open": 1}
            yield source, [source.envelope([orjson.dumps(beat)])]
            yield from _pause(1.0)
        end = self._events.program_end(begin)
        self.expected.say("stuck call ended", "ended", own)
        yield source, [source.envelope([orjson.dumps(end)], last=True)]

    def _left(self) -> Iterator[tuple[Source, Group] | None]:
        """A source that closes and leaves a call open."""
        source = Source("left")
        begin = self._begin(0)
        own = self.expected.say("left open", "orphaned", self._log_id, source.id, begin["call_id"])
        yield source, [source.envelope([orjson.dumps(begin)], last=True)]
        for _ in self._until(own):
            yield None

    def _silent(self) -> Iterator[tuple[Source, Group] | None]:
        """A source that falls silent with a call open, and never closes."""
        source = Source("silent")
        begin = self._begin(0)
        ids = [
            self.expected.say("silent's", "orphaned", self._log_id, source.id, begin["call_id"]),
            self.expected.say("silent", "unclean_end", self._log_id, source.id, 1),
        ]
        yield source, [source.envelope([orjson.dumps(begin)])]
        for own in ids:
            for _ in self._until(own):
                yield None

    def _skewed(self) -> Iterator[tuple[Source, Group] | None]:
        """A source whose clock is two minutes ahead, and is set right."""
        source = Source("skewed")
        own = self.expected.say("clock ahead", "clock_skew", self._log_id, source.id, 1)
        yield source, [source.envelope([], ahead_us=120_000_000)]
        for _ in self._until(own):
            yield None
        agrees = self.expected.say("clock set right", "clock_agrees", own)
        for _ in self._until(agrees):
            # Sent anew while it is away for so long that the broker has it too late to agree.
            yield source, [source.envelope([])]
            yield from _pause(2.0)
        yield source, [source.envelope([], last=True)]

    def _refunded(self) -> Iterator[tuple[Source, Group] | None]:
        """Money that reaches a threshold, and is taken back when that has been told."""
        source = Source("refunded")
        yield source, [source.envelope([self._bill(REFUNDED_PICO)])]
        while not self._is_said(self._refund_id()):
            yield None
        yield source, [source.envelope([self._bill(-REFUNDED_PICO)], last=True)]

    def _refund_id(self) -> str:
        started_us = next(s.started_us for s in self.sent.spent if s.service == "refunded")
        start = month_of(started_us)[0]
        return identity("threshold", "refunded", 1, "", start, "cost", "50%", 0)

    def _bill(self, pico: int) -> bytes:
        self.sent.truth.counts["events"] += 1
        return orjson.dumps(self._events.cost(now_us(), pico, "refunded"))

    def _until(self, own: str) -> Iterator[None]:
        while not self._is_said(own):
            yield None


def _pause(seconds: float) -> Iterator[None]:
    until_s = time.monotonic() + seconds
    while time.monotonic() < until_s:
        yield None


def now_us() -> int:
    """The wall's clock in microseconds."""
    return time.time_ns() // 1000
