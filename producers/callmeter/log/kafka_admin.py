"""Topics of a prefix and the id of its log: made once, checked ever after (design 5)."""

from __future__ import annotations

import shlex
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aiokafka.admin import NewTopic
from aiokafka.errors import TopicAlreadyExistsError, for_code

from callmeter.errors import ConfigError, UnreachableError
from callmeter.log.kafka_clients import started_admin
from callmeter.log.kafka_errors import kafka_errors
from callmeter.log.kafka_settings import KafkaSettings
from callmeter.log.kafka_state import open_partition, publish
from callmeter.schema.topics import DEFAULT_PARTITIONS, EVENTS, LOG, TOPICS, Topic

# Untyped in aiokafka.
_new_topic: Any = NewTopic

#: What the broker reports about a topic: full name -> number of partitions.
Partitions = Mapping[str, int]


@dataclass(frozen=True, slots=True)
class AppliedTopics:
    """What ``apply_topics`` found and did; names are full names."""

    log_id: str
    partitions: int
    created: tuple[str, ...]
    existing: tuple[str, ...]


async def apply_topics(
    settings: KafkaSettings,
    *,
    partitions: int = DEFAULT_PARTITIONS,
    replication: int | None = None,
) -> AppliedTopics:
    """Creates the registry's topics that are missing, and the log's id.

    Safe to run again and at the same time as others. ``ConfigError``, and nothing made, if a topic
    is there with another number of partitions: it is fixed for a prefix's life. ``replication`` is
    3 by default, or the number of brokers if there are fewer.
    """
    async with started_admin(settings) as admin:
        there = await _partitions(admin, settings)
        _refuse_other_counts(settings, there, partitions)
        missing = [t for t in TOPICS if t.full(settings.prefix) not in there]
        if missing:
            with kafka_errors(settings):
                copies = replication or min(3, len((await admin.describe_cluster())["brokers"]))
                new = [
                    _new_topic(
                        topic.full(settings.prefix),
                        topic.partitions or partitions,
                        copies,
                        topic_configs=dict(topic.config),
                    )
                    for topic in missing
                ]
                response = await admin.create_topics(new)
            _check_created(settings, response)
            # Another creator may have been faster, with another count.
            _refuse_other_counts(settings, await _partitions(admin, settings), partitions)
    return AppliedTopics(
        log_id=await _ensure_log_id(settings),
        partitions=partitions,
        created=tuple(t.full(settings.prefix) for t in missing),
        existing=tuple(sorted(there)),
    )


def topic_commands(
    settings: KafkaSettings, *, partitions: int = DEFAULT_PARTITIONS, replication: int = 3
) -> list[str]:
    """The same as ``kafka-topics.sh`` lines, for an administrator who creates topics himself.

    ``callmeter topics apply`` is still to be run afterwards: it writes the log's id.
    """
    return [_command(settings, topic, partitions, replication) for topic in TOPICS]


async def check_topics(settings: KafkaSettings, *, partitions: int | None = None) -> int:
    """The prefix's number of partitions, if every topic is there with its right count.

    ``ConfigError`` names what is missing or differs, and the command that mends it. ``partitions``
    None takes the number of ``events`` for the rest.
    """
    async with started_admin(settings) as admin:
        there = await _partitions(admin, settings)
    missing = [t.full(settings.prefix) for t in TOPICS if t.full(settings.prefix) not in there]
    if missing:
        raise ConfigError(
            f"{settings.display} lacks {', '.join(missing)}: run callmeter topics apply"
        )
    count = partitions or there[EVENTS.full(settings.prefix)]
    _refuse_other_counts(settings, there, count)
    return count


async def read_log_id(settings: KafkaSettings) -> str:
    """The log's id; ``ConfigError`` if there is none: the topics have not been applied."""
    async with started_admin(settings) as admin:
        # A consumer of a topic that is not there might create it, with a wrong number of
        # partitions.
        if LOG.full(settings.prefix) not in await _partitions(admin, settings):
            raise ConfigError(
                f"{settings.display} has no topics of prefix {settings.prefix!r}: "
                "run callmeter topics apply"
            )
    log_id = await _first_log_id(settings)
    if log_id is None:
        raise ConfigError(
            f"the log of prefix {settings.prefix!r} has no id: run callmeter topics apply"
        )
    return log_id


async def _ensure_log_id(settings: KafkaSettings) -> str:
    log_id = await _first_log_id(settings)
    if log_id is None:
        mine = str(uuid.uuid4())
        await publish(settings, LOG.name, {mine.encode(): mine.encode()})
        # Two creators may both have written: the first record is the id, for both.
        log_id = await _first_log_id(settings)
    if log_id is None:
        raise UnreachableError(f"{settings.display} took the log's id but does not give it back")
    return log_id


async def _first_log_id(settings: KafkaSettings) -> str | None:
    async with open_partition(settings, LOG.name, 0) as reader:
        first, end = await reader.offsets()
        async for record in reader.read(first, end):
            if record.value is not None:
                return record.value.decode()
    return None


def _command(settings: KafkaSettings, topic: Topic, partitions: int, replication: int) -> str:
    words = ["kafka-topics.sh", "--bootstrap-server", settings.bootstrap_servers]
    words += ["--create", "--if-not-exists", "--topic", topic.full(settings.prefix)]
    words += ["--partitions", str(topic.partitions or partitions)]
    words += ["--replication-factor", str(replication)]
    for name, value in topic.config.items():
        words += ["--config", f"{name}={value}"]
    return shlex.join(words)


def _refuse_other_counts(settings: KafkaSettings, there: Partitions, partitions: int) -> None:
    for topic in TOPICS:
        name, wanted = topic.full(settings.prefix), topic.partitions or partitions
        found = there.get(name, wanted)
        if found != wanted:
            raise ConfigError(
                f"topic {name} has {found} partitions, not {wanted}: the number is fixed for a "
                "prefix's life; give that number, or another prefix (…?prefix=NAME)"
            )


def _check_created(settings: KafkaSettings, response: Any) -> None:
    for name, code, *message in response.topic_errors:
        error = for_code(code)
        if code and error is not TopicAlreadyExistsError:
            text = (message[0] if message else None) or error.description
            raise ConfigError(f"{settings.display} did not create {name}: {text}")


async def _partitions(admin: Any, settings: KafkaSettings) -> dict[str, int]:
    names = {topic.full(settings.prefix) for topic in TOPICS}
    with kafka_errors(settings):
        # All of them: asking for one that is missing may create it.
        topics = await admin.describe_topics()
    return {t["topic"]: len(t["partitions"]) for t in topics if t["topic"] in names}
