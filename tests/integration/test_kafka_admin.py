"""Topics and the log's id on a real Kafka: made once, agreed on by racing creators."""

from __future__ import annotations

import asyncio

import pytest
from confluent_kafka.admin import AdminClient, ConfigResource  # type: ignore[attr-defined]

from callmeter.errors import ConfigError, UnreachableError
from callmeter.log.kafka_admin import apply_topics, check_topics, read_log_id
from callmeter.log.kafka_settings import KafkaSettings
from callmeter.schema.topics import TOPICS
from support.kafka_server import Broker

pytestmark = pytest.mark.kafka


@pytest.fixture
def settings(kafka: Broker, topic_prefix: str) -> KafkaSettings:
    return KafkaSettings.from_url(f"{kafka.url}?prefix={topic_prefix}", {})


async def test_applying_twice_changes_nothing(settings: KafkaSettings) -> None:
    first = await apply_topics(settings, partitions=3)
    second = await apply_topics(settings, partitions=3)
    assert set(first.created) == {t.full(settings.prefix) for t in TOPICS} == set(second.existing)
    assert (first.existing, second.created) == ((), ())
    assert first.log_id == second.log_id == await read_log_id(settings)
    assert await check_topics(settings) == 3


async def test_racing_creators_agree_on_one_id(settings: KafkaSettings) -> None:
    applied = await asyncio.gather(*(apply_topics(settings, partitions=2) for _ in range(5)))
    assert len({a.log_id for a in applied}) == 1
    assert await read_log_id(settings) == applied[0].log_id


async def test_another_number_of_partitions_is_refused(settings: KafkaSettings) -> None:
    await apply_topics(settings, partitions=2)
    for refused in (apply_topics(settings, partitions=4), check_topics(settings, partitions=4)):
        with pytest.raises(ConfigError, match=r"has 2 partitions, not 4") as error:
            await refused
        assert "\n" not in str(error.value)


async def test_settings_of_the_registry_reach_the_broker(
    kafka: Broker, settings: KafkaSettings
) -> None:
    await apply_topics(settings, partitions=2)
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    resources = [ConfigResource(ConfigResource.Type.TOPIC, t.full(settings.prefix)) for t in TOPICS]
    described = admin.describe_configs(resources)
    for topic, resource in zip(TOPICS, resources, strict=True):
        config = described[resource].result(30)
        assert {k: config[k].value for k in topic.config} == dict(topic.config)


async def test_what_is_missing_is_named_with_the_command(settings: KafkaSettings) -> None:
    for wanted in (check_topics(settings), read_log_id(settings)):
        with pytest.raises(ConfigError, match="run callmeter topics apply"):
            await wanted
    # Looking did not create anything.
    applied = await apply_topics(settings, partitions=2)
    assert len(applied.created) == len(TOPICS)


async def test_a_broker_that_is_away_is_one_line() -> None:
    away = KafkaSettings.from_url("kafka://127.0.0.1:1", {})
    with pytest.raises(UnreachableError, match=r"kafka://127\.0\.0\.1:1 is not reachable") as error:
        await apply_topics(away)
    assert "\n" not in str(error.value)
