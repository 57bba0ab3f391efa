"""The lines that ``topics apply --print`` gives an administrator, and the position row."""

from __future__ import annotations

import shlex

import pytest

from callmeter.errors import DataError, NewerSchemaError
from callmeter.log.kafka_admin import topic_commands
from callmeter.log.kafka_settings import KafkaSettings
from callmeter.log.position import decode_position, encode_position
from callmeter.schema.topics import TOPICS


def test_every_topic_has_its_line_with_count_and_settings() -> None:
    settings = KafkaSettings.from_url("kafka://a:1,b:2?prefix=shop", {})
    lines = topic_commands(settings, partitions=7, replication=2)
    assert len(lines) == len(TOPICS)
    for topic, line in zip(TOPICS, lines, strict=True):
        words = shlex.split(line)
        assert words[:4] == ["kafka-topics.sh", "--bootstrap-server", "a:1,b:2", "--create"]
        assert words[words.index("--topic") + 1] == f"shop.{topic.name}"
        assert words[words.index("--partitions") + 1] == str(topic.partitions or 7)
        assert words[words.index("--replication-factor") + 1] == "2"
        configs = [words[i + 1] for i, word in enumerate(words) if word == "--config"]
        assert configs == [f"{k}={v}" for k, v in topic.config.items()]


def test_a_password_is_in_no_line() -> None:
    settings = KafkaSettings.from_url("kafka+ssl://me:secret@a:1", {})
    assert not any("secret" in line for line in topic_commands(settings))


def test_a_position_speaks_of_one_log() -> None:
    row = encode_position("log-1", 43)
    assert decode_position(row, "log-1") == 43
    assert decode_position(row, "log-2") is None


@pytest.mark.parametrize("row", [b"", b"[]", b"{}", b'{"v":1,"log":"a"}', b'{"v":1,"next":"4"}'])
def test_what_is_no_position_is_refused(row: bytes) -> None:
    with pytest.raises(DataError):
        decode_position(row, "a")


def test_a_newer_position_asks_for_an_upgrade() -> None:
    with pytest.raises(NewerSchemaError, match="upgrade"):
        decode_position(b'{"v":2}', "a")
