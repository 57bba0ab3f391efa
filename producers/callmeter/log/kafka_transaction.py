"""One transactional producer: what the exact runtime writes a partition's checkpoints with."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

from aiokafka.errors import IllegalOperation, InvalidProducerEpoch, KafkaError, ProducerFenced

from callmeter.errors import CallmeterError
from callmeter.log.kafka_clients import make_producer
from callmeter.log.kafka_errors import kafka_errors, translated
from callmeter.log.kafka_settings import KafkaSettings
from callmeter.log.partitioner import partition_for
from callmeter.log.record import NewRecord
from callmeter.schema.topics import BY_NAME

logger = logging.getLogger(__name__)
_STOP_S = 3.0
_FENCED = (ProducerFenced, InvalidProducerEpoch)


class FencedError(CallmeterError):
    """Another producer has taken the transactional id: this one will never write again."""


class TransactionWriter:
    """A producer with a transactional id. Used from one task at a time.

    ``start`` fences every earlier producer of the id and ends the transaction it may have left
    open, so what is read ``read_committed`` afterwards is all there will ever be of it. After any
    error from ``commit`` it is unknown whether the transaction is in the log: stop this writer,
    start a new one, and read.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        transactional_id: str,
        *,
        partitions: int,
        timeout_s: float = 20.0,
        compression: str | None = "zstd",
    ) -> None:
        self._settings = settings
        self._partitions = partitions
        self._timeout_s = timeout_s
        self.transactional_id = transactional_id
        self._producer: Any = make_producer(
            settings,
            transactional_id=transactional_id,
            transaction_timeout_ms=int(timeout_s * 1000),
            linger_ms=0,
            compression_type=compression,
        )

    async def start(self) -> None:
        """Connects and fences. ``UnreachableError`` or ``ConfigError`` if it cannot."""
        with kafka_errors(self._settings):
            async with asyncio.timeout(self._timeout_s):
                await self._producer.start()

    async def commit(self, records: Sequence[NewRecord]) -> None:
        """Writes the records in one transaction, in this order; in the log once this returns.

        ``FencedError`` if another has taken over, ``UnreachableError`` if it cannot be told whether
        the transaction was written.
        """
        sent: list[asyncio.Future[Any]] = []
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._producer.begin_transaction()
                for record in records:
                    # One by one: after an error those that were sent are asked about it.
                    sent.append(await self._send(record))  # noqa: PERF401
                # Each record's own error is told here; the commit would only say that it failed.
                await asyncio.gather(*sent)
                await self._producer.commit_transaction()
        except (KafkaError, IllegalOperation, TimeoutError, OSError) as exc:
            # Who is fenced amid sending is told that there is no transaction; its records know why.
            errors = [exc, *(f.exception() for f in sent if f.done() and not f.cancelled())]
            if any(isinstance(error, _FENCED) for error in errors):
                raise FencedError(
                    f"{self.transactional_id} was taken over by another worker"
                ) from exc
            raise translated(exc, self._settings) from exc
        finally:
            for future in sent:
                # Retrieved, or asyncio complains about each of them when it is collected.
                future.add_done_callback(lambda f: f.cancelled() or f.exception())

    async def stop(self) -> None:
        """Lets go of the connection, in a bounded time; an open transaction is left behind."""
        try:
            async with asyncio.timeout(_STOP_S):
                await self._producer.stop()
        except (KafkaError, TimeoutError, OSError) as exc:
            # Nothing depends on a clean goodbye: the next owner fences this id.
            logger.info("%s did not stop cleanly: %r", self.transactional_id, exc)

    async def _send(self, record: NewRecord) -> Any:
        topic, key, value, partition = record
        if partition is None:
            partition = partition_for(key or b"", BY_NAME[topic].partitions or self._partitions)
        return await self._producer.send(
            BY_NAME[topic].full(self._settings.prefix), key=key, value=value, partition=partition
        )
