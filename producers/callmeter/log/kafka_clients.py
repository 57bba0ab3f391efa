"""aiokafka's clients with callmeter's settings; the library has no types, so they are Any."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.codec import has_zstd

from callmeter.log.kafka_errors import kafka_errors
from callmeter.log.kafka_settings import KafkaSettings
from callmeter.log.kafka_zstd import fast_zstd

#: Several envelopes a batch, and under the 1 MB that a broker takes by default.
BATCH_BYTES = 512 * 1024
#: The largest record that is sent; the topic's own limit, ``max.message.bytes``, may be lower.
MAX_RECORD_BYTES = 4 * 2**20
FETCH_BYTES = 4 * 2**20

# Through Any, so that each call does not have to be excused to the type checker.
_producer: Any = AIOKafkaProducer
_consumer: Any = AIOKafkaConsumer


def make_producer(settings: KafkaSettings, **options: Any) -> Any:
    """An AIOKafkaProducer that is not started: zstd if it can, batches of ``BATCH_BYTES``.

    Made on the thread that runs it.
    """
    fast_zstd()
    defaults: dict[str, Any] = {
        "compression_type": "zstd" if has_zstd() else None,
        "max_batch_size": BATCH_BYTES,
        "max_request_size": MAX_RECORD_BYTES,
    }
    return _producer(**settings.client_kwargs(), **(defaults | options))


def make_consumer(settings: KafkaSettings) -> Any:
    """An AIOKafkaConsumer without a group, not started, reading committed records only."""
    return _consumer(
        **settings.client_kwargs(),
        isolation_level="read_committed",
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        max_partition_fetch_bytes=FETCH_BYTES,
    )


def make_admin(settings: KafkaSettings) -> Any:
    """An AIOKafkaAdminClient that is not started."""
    return AIOKafkaAdminClient(**settings.client_kwargs())


@asynccontextmanager
async def started_admin(settings: KafkaSettings) -> AsyncIterator[Any]:
    """An admin client for as long as the block runs. ``UnreachableError``, ``ConfigError``."""
    admin = make_admin(settings)
    try:
        with kafka_errors(settings):
            await admin.start()
        yield admin
    finally:
        await admin.close()


async def partitions_of(consumer: Any, full: str) -> set[int]:
    """The partitions of a topic as the broker has them now; none if it has no such topic."""
    if consumer.partitions_for_topic(full) is None:
        await consumer._client.add_topic(full)
        await consumer._client.force_metadata_update()
    return set(consumer.partitions_for_topic(full) or ())
