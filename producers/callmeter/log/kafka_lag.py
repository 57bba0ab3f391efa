"""How far a consumer group of ours is behind, and how topics are set up: asked, never changed."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aiokafka import TopicPartition
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import GroupCoordinatorNotAvailableError, NotCoordinatorForGroupError

from callmeter.log.kafka_clients import make_consumer, partitions_of, started_admin
from callmeter.log.kafka_errors import kafka_errors
from callmeter.log.kafka_settings import KafkaSettings
from callmeter.schema.topics import BY_NAME, TOPICS

_TRIES = 20
_AGAIN_S = 0.25
# Untyped in aiokafka.
_resource: Any = ConfigResource


@dataclass(frozen=True, slots=True)
class GroupLag:
    """One group on one topic. ``records`` wait; with transactions a few of them are markers.

    ``members`` is how many processes share the topic now.
    """

    group: str
    topic: str
    members: int
    partitions: int
    records: int


@dataclass(frozen=True, slots=True)
class TopicSetup:
    """One topic as the broker has it: its copies, and where its settings differ from ours.

    ``differing`` maps a setting to (wanted, found).
    """

    name: str
    replicas: int
    differing: Mapping[str, tuple[str, str]]


async def group_lags(settings: KafkaSettings, groups: Mapping[str, str]) -> list[GroupLag]:
    """The lag of each group (``meter`` → the topic it reads, without the prefix).

    Counted from the offsets that groups commit for this very purpose: our processes do not start
    from them. ``UnreachableError`` if Kafka does not answer.
    """
    consumer = make_consumer(settings)
    try:
        with kafka_errors(settings):
            await consumer.start()
        async with started_admin(settings) as admin:
            return [
                await _lag(settings, admin, consumer, group, topic)
                for group, topic in groups.items()
            ]
    finally:
        await consumer.stop()


async def topic_setups(settings: KafkaSettings) -> list[TopicSetup]:
    """Copies and settings of the registry's topics; those that are missing are left out."""
    async with started_admin(settings) as admin:
        with kafka_errors(settings):
            there = {t["topic"]: t for t in await admin.describe_topics()}
            ours = {t.full(settings.prefix): t for t in TOPICS if t.full(settings.prefix) in there}
            found: dict[str, dict[str, str]] = {}
            wanted = [_resource(ConfigResourceType.TOPIC, name) for name in ours]
            for response in await admin.describe_configs(wanted):
                for _code, _message, _kind, name, entries in response.resources:
                    found[name] = {entry[0]: entry[1] for entry in entries}
    return [
        TopicSetup(
            name,
            min((len(p["replicas"]) for p in there[name]["partitions"]), default=0),
            {
                key: (value, found[name][key])
                for key, value in topic.config.items()
                if found.get(name, {}).get(key, value) != value
            },
        )
        for name, topic in ours.items()
    ]


async def _lag(
    settings: KafkaSettings, admin: Any, consumer: Any, group: str, topic: str
) -> GroupLag:
    full, name = BY_NAME[topic].full(settings.prefix), f"{settings.prefix}.{group}"
    with kafka_errors(settings):
        parts = [TopicPartition(full, part) for part in await partitions_of(consumer, full)]
        ends = await consumer.end_offsets(parts)
        begins = await consumer.beginning_offsets(parts)
        committed, members = await _group(admin, name)
    lag = 0
    for part in parts:
        at = committed[part].offset if part in committed else -1
        lag += max(0, ends[part] - max(at, begins[part]))
    return GroupLag(group, topic, members, len(parts), lag)


async def _group(admin: Any, name: str) -> tuple[Mapping[Any, Any], int]:
    """Committed offsets and the number of members; of a group that never was, neither."""
    for _ in range(_TRIES):
        try:
            committed = await admin.list_consumer_group_offsets(name)
            (described,) = await admin.describe_consumer_groups([name])
        except (GroupCoordinatorNotAvailableError, NotCoordinatorForGroupError):
            # A broker that has never had a group makes its topic for them when first asked.
            await asyncio.sleep(_AGAIN_S)
        else:
            return committed, sum(len(each[5]) for each in described.groups)
    return {}, 0
