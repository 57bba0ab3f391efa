"""Faust around the exact partitions: consumer group, agent, timers, life cycle (design 7, 14).

Faust's tables, transactions and producer are not used; docs/decisions/0004 says why. Its committed
offsets serve lag displays only.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import faust
from faust.auth import OAuthCredentials, SASLCredentials, SSLCredentials
from mode import CrashingSupervisor

from callmeter.clock import Clock, SystemClock
from callmeter.errors import CallmeterError, UnreachableError
from callmeter.log.kafka_settings import KafkaSettings
from callmeter.log.kafka_transaction import FencedError
from callmeter.log.record import LogRecord
from callmeter.schema.topics import BY_NAME
from callmeter_processors.runtime.exact import ExactPartition, Stage
from callmeter_processors.runtime.faust_transport import Transport
from callmeter_processors.runtime.pace import Pace
from callmeter_processors.runtime.stats import RuntimeStats
from callmeter_processors.step import StepFactory

logger = logging.getLogger(__name__)
_IDLE_S = 1.0
#: Before a failed partition is opened again; doubled each time.
_FIRST_PAUSE_S, _MAX_PAUSE_S = 0.5, 8.0
#: A partition that is assigned here and taken over so often in a row has an owner outside the
#: group.
_MAX_FENCED = 8
#: Partitions restored at the same time when a worker starts.
_OPENING = 4


class ExactWorker:
    """The partitions that Faust assigned to this process, each an ``ExactPartition``.

    Lives on one event loop. A fenced or failed transaction drops the partition's memory and starts
    over from the log, as long as the partition is still assigned; any other error crashes the app,
    so that no record is passed over.
    """

    def __init__(
        self,
        stage: Stage,
        factory: StepFactory,
        *,
        group: str,
        checkpoint_s: float,
        checkpoint_records: int,
        stats: RuntimeStats,
        session_timeout_s: float,
        loop: asyncio.AbstractEventLoop,
        clock: Clock | None = None,
    ) -> None:
        self._stage = stage
        self._factory = factory
        self._checkpoint_records = checkpoint_records
        self._pace = Pace(gather_s=checkpoint_s, full=checkpoint_records)
        self._stats = stats
        self._clock = clock or SystemClock()
        self._topic_name = BY_NAME[stage.source].full(stage.kafka.prefix)
        self._owned: dict[int, ExactPartition] = {}
        self._assigned: frozenset[int] = frozenset()
        self._locks = [asyncio.Lock() for _ in range(stage.partitions)]
        self._opening = asyncio.Semaphore(_OPENING)
        self._turn = asyncio.Lock()
        self.app = make_app(
            stage.kafka,
            group=group,
            partitions=stage.partitions,
            session_timeout_s=session_timeout_s,
            buffer_records=checkpoint_records * 2,
            loop=loop,
        )
        topic = self.app.topic(
            self._topic_name,
            key_type=bytes,
            value_type=bytes,
            key_serializer="raw",
            value_serializer="raw",
            partitions=stage.partitions,
        )
        self.app.agent(topic, name=stage.name)(self._follow)
        self.app.timer(_IDLE_S)(self._idle)
        # Any: Faust's signals pass their arguments under other names than their types say.
        on_assigned: Any = self._on_assigned
        on_revoked: Any = self._on_revoked
        self.app.on_partitions_assigned.connect(on_assigned)
        self.app.on_partitions_revoked.connect(on_revoked)

    async def close(self) -> None:
        """Closes every partition; after the app has stopped."""
        self._assigned = frozenset()
        self._stats.assigned = None
        await asyncio.gather(*(self._drop(p) for p in list(self._owned)))

    async def _follow(self, stream: Any) -> None:
        """The agent: batches from Faust, a transaction for each partition in it, then the acks."""
        pace = self._pace
        async for batch in stream.noack_take(self._checkpoint_records, within=pace.gather_s):
            began_s = self._clock.monotonic_s()
            by_partition: dict[int, list[LogRecord]] = {}
            for event in batch:
                message = event.message
                by_partition.setdefault(message.partition, []).append(
                    LogRecord(
                        self._stage.source,
                        message.partition,
                        message.offset,
                        round(message.timestamp * 1000) * 1000,
                        message.key,
                        message.value,
                    )
                )
            await _all(self._deliver(p, records) for p, records in by_partition.items())
            for event in batch:
                await stream.ack(event)
            behind = sum(self._behind(p, each[-1].offset) for p, each in by_partition.items())
            rest_s = pace.rest_s(len(batch), self._clock.monotonic_s() - began_s, behind)
            self._stats.rest_s = rest_s
            if rest_s and not self.app.rebalancing:
                await asyncio.sleep(rest_s)

    def _behind(self, partition: int, offset: int) -> int:
        """Records after ``offset`` that were there when the end was looked at last."""
        figures = self._stats.partitions.get(partition)
        return 0 if figures is None else max(0, figures.end_offset - offset - 1)

    async def _deliver(self, partition: int, records: list[LogRecord]) -> None:
        """Processes and checkpoints the records, however often the partition has to be opened."""
        pause_s = _FIRST_PAUSE_S
        fenced = 0
        failed = False
        # Records of a partition that was lost, or is being lost, are left: whoever has it then
        # reads them from its position. Without that, a worker that was away would first take it
        # back.
        while partition in self._assigned and not (failed and self.app.rebalancing):
            try:
                async with self._using(partition) as owned:
                    await owned.process(records)
                return
            except FencedError as exc:
                fenced += 1
                if fenced == _MAX_FENCED:
                    raise
                self._starts_over(partition, exc)
            except UnreachableError as exc:
                self._starts_over(partition, exc)
            failed = True
            # Time for the broker to come back, or the group to tell who owns the partition now.
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, _MAX_PAUSE_S)

    async def _idle(self) -> None:
        """Every second: opens partitions that have no records yet, ticks those that had none."""
        self._stats.beat_s = self._clock.monotonic_s()
        await _all(self._idle_partition(p) for p in self._assigned)

    async def _idle_partition(self, partition: int) -> None:
        end = self._end(partition)
        self._note_end(partition, end)
        if self._locks[partition].locked():
            return
        try:
            async with self._using(partition) as owned:
                await owned.idle(end)
                owned.measure()
        except (FencedError, UnreachableError) as exc:
            self._starts_over(partition, exc)
        self._note_end(partition, end)

    def _end(self, partition: int) -> int | None:
        """The source's end as the consumer knows it; None if it does not."""
        try:
            return self.app.consumer.highwater(faust.types.TP(self._topic_name, partition))
        except AssertionError:
            # aiokafka's thread has another assignment already, which we are about to be told of.
            return None

    def _note_end(self, partition: int, end: int | None) -> None:
        figures = self._stats.partitions.get(partition)
        if figures is not None and end is not None:
            figures.end_offset = end

    @asynccontextmanager
    async def _using(self, partition: int) -> AsyncIterator[ExactPartition]:
        """The owned partition, opened if need be, for one task at a time.

        Kept only if all went well. After any error, cancellation too, what is in memory may be
        ahead of the log or behind it: it is thrown away.
        """
        async with self._locks[partition]:
            owned = self._owned.pop(partition, None)
            if owned is None:
                async with self._opening:
                    owned = await ExactPartition.open(
                        self._stage,
                        self._factory,
                        partition,
                        self._clock,
                        self._stats,
                        turn=self._turn,
                    )
            kept = False
            try:
                yield owned
                kept = partition in self._assigned
            finally:
                if kept:
                    self._owned[partition] = owned
                else:
                    self._stats.partitions.pop(partition, None)
                    await owned.close()

    def _starts_over(self, partition: int, exc: Exception) -> None:
        logger.warning("partition %d starts over from the log: %s", partition, exc)
        self._stats.restarts += 1

    async def _drop(self, partition: int) -> None:
        owned = self._owned.pop(partition, None)
        self._stats.partitions.pop(partition, None)
        if owned is not None:
            await owned.close()

    async def _on_revoked(self, app: Any, revoked: Iterable[Any], **_: Any) -> None:
        # Only noted. Eager rebalances revoke everything and give most of it back a moment later;
        # who keeps a partition keeps its memory, and who lost it is fenced by the new owner.
        self._stats.rebalances += 1
        logger.info("partitions revoked: %s", sorted(tp.partition for tp in revoked))

    async def _on_assigned(self, app: Any, assigned: Iterable[Any], **_: Any) -> None:
        self._assigned = frozenset(tp.partition for tp in assigned if tp.topic == self._topic_name)
        self._stats.assigned = self._assigned
        logger.info("partitions assigned: %s", sorted(self._assigned))
        gone = [p for p in self._owned if p not in self._assigned]
        await asyncio.gather(*(self._drop(p) for p in gone))


async def _all(tasks: Iterable[Any]) -> None:
    """Awaits all, also when one fails, so that no partition is cut off amid a transaction."""
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(result, BaseException):
            raise result


class _QuietCancel(logging.Filter):
    """Faust logs every agent that it stops or restarts itself as a crash, with a traceback."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        return not isinstance(error, asyncio.CancelledError)


class _SaidOnce(logging.Filter):
    """An error of ours that ends the app is raised and said by whoever runs it, in one line."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        return not isinstance(error, CallmeterError)


logging.getLogger("faust.agents.actor").addFilter(_QuietCancel())
logger.addFilter(_SaidOnce())


class _App(faust.App):
    """A Faust app that leaves no directories behind: it has no tables."""

    def _create_directories(self) -> None:
        return


def make_app(
    kafka: KafkaSettings,
    *,
    group: str,
    partitions: int,
    session_timeout_s: float,
    buffer_records: int,
    loop: asyncio.AbstractEventLoop,
) -> faust.App:
    """A Faust app for one consumer group, with the settings that mattered (design 14)."""
    urls = [f"kafka://{server}" for server in kafka.servers]
    app = _App(
        group,
        loop=loop,
        broker=";".join(urls),
        broker_credentials=_credentials(kafka),
        broker_session_timeout=session_timeout_s,
        broker_heartbeat_interval=session_timeout_s / 3,
        broker_rebalance_timeout=session_timeout_s,
        broker_commit_interval=1.0,
        consumer_auto_offset_reset="earliest",
        consumer_max_fetch_size=4 * 2**20,
        # An agent that raises must end the worker: Faust would skip the record and go on.
        agent_supervisor=CrashingSupervisor,
        stream_wait_empty=True,
        # A rebalance waits for what is buffered.
        stream_buffer_maxsize=buffer_records,
        topic_disable_leader=True,
        topic_allow_declare=False,
        topic_partitions=partitions,
        web_enabled=False,
        autodiscover=False,
    )
    app.transport = Transport(app.conf.broker, app, loop=loop)
    return app


def _credentials(kafka: KafkaSettings) -> Any:
    context = kafka.ssl_context()
    if kafka.mechanism == "OAUTHBEARER":
        provider = kafka.client_kwargs()["sasl_oauth_token_provider"]
        return OAuthCredentials(oauth_cb=provider, ssl_context=context)
    if kafka.mechanism is not None:
        return SASLCredentials(
            username=kafka.username,
            password=kafka.password,
            mechanism=kafka.mechanism,
            ssl_context=context,
        )
    return None if context is None else SSLCredentials(context)
