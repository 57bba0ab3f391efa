"""One transactional producer: what the exact runtime writes a partition's checkpoints with."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator, Sequence
from typing import Any

from aiokafka.errors import (
    IllegalOperation,
    InvalidProducerEpoch,
    KafkaError,
    MessageSizeTooLargeError,
    ProducerFenced,
)

from callmeter.errors import CallmeterError
from callmeter.log.kafka_batch import KeyValue, RecordBatch, batch_codec
from callmeter.log.kafka_clients import MAX_RECORD_BYTES, make_producer
from callmeter.log.kafka_errors import kafka_errors, translated
from callmeter.log.kafka_settings import KafkaSettings
from callmeter.log.partitioner import partition_for
from callmeter.log.record import NewRecord
from callmeter.schema.topics import BY_NAME

logger = logging.getLogger(__name__)
_STOP_S = 3.0
#: Of a batch before it is compressed: what any broker takes, even if nothing shrinks.
_BATCH_BYTES = 1_000_000
#: What a record needs in a batch besides key and value, at most.
_RECORD_ROOM = 32
_FENCED = (ProducerFenced, InvalidProducerEpoch)


class FencedError(CallmeterError):
    """Another producer has taken the transactional id: this one will never write again."""


class TransactionWriter:
    """A producer with a transactional id. Used from one task at a time.

    ``start`` fences every earlier producer of the id and ends the transaction it may have left
    open, so what is read ``read_committed`` afterwards is all there will ever be of it. After any
    error from ``commit`` it is unknown whether the transaction is in the log: stop this writer,
    start a new one, and read. ``compression`` is zstd, lz4, gzip or None.
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
        )
        self._codec = batch_codec(compression)

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
                await self._send(records, sent)
                # Each batch's own error is told here; the commit would only say that it failed.
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
            self._hear_waiters()

    async def stop(self) -> None:
        """Lets go of the connection, in a bounded time; an open transaction is left behind."""
        try:
            async with asyncio.timeout(_STOP_S):
                await self._producer.stop()
        except (KafkaError, TimeoutError, OSError) as exc:
            # Nothing depends on a clean goodbye: the next owner fences this id.
            logger.info("%s did not stop cleanly: %r", self.transactional_id, exc)

    def _hear_waiters(self) -> None:
        """The same for aiokafka's own: of batches that were never sent, of the transaction."""
        queues = self._producer._message_accumulator._batches.values()
        waiters = [batch._drain_waiter for queue in queues for batch in queue]
        for waiter in (*waiters, self._producer._txn_manager._transaction_waiter):
            if waiter is not None and waiter.done() and not waiter.cancelled():
                waiter.exception()

    async def _send(self, records: Sequence[NewRecord], sent: list[asyncio.Future[Any]]) -> None:
        """Adds to ``sent`` as it goes: after an error those that were sent are asked about it."""
        for topic, partition, batch in self._batches(records):
            sent.append(await self._producer.send_batch(batch, topic, partition=partition))

    def _batches(self, records: Sequence[NewRecord]) -> Iterator[tuple[str, int, RecordBatch]]:
        """The records by full topic and partition, each's in order, each batch made when it is due.

        A batch is small enough for any broker before it is compressed, or one record alone.
        """
        places: dict[tuple[str, int], list[KeyValue]] = {}
        for topic, key, value, given in records:
            place = given
            if place is None:
                place = partition_for(key or b"", BY_NAME[topic].partitions or self._partitions)
            places.setdefault((topic, place), []).append((key, value))
        time_ms = time.time_ns() // 1_000_000
        for (topic, partition), all_of_it in places.items():
            full = BY_NAME[topic].full(self._settings.prefix)
            for some in _in_pieces(all_of_it):
                batch = RecordBatch(self._codec, some, time_ms, transactional=True)
                yield full, partition, batch


def _in_pieces(records: Sequence[KeyValue]) -> Iterator[list[KeyValue]]:
    """As many records together as one batch takes. ``MessageSizeTooLargeError`` for a record."""
    piece: list[KeyValue] = []
    size = 0
    for key, value in records:
        needs = len(key or b"") + len(value or b"") + _RECORD_ROOM
        if needs > MAX_RECORD_BYTES:
            raise MessageSizeTooLargeError(f"a record of {needs} bytes, {MAX_RECORD_BYTES} at most")
        if piece and size + needs > _BATCH_BYTES:
            yield piece
            piece, size = [], 0
        piece.append((key, value))
        size += needs
    yield piece
