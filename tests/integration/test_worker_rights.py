"""The rights that docs/guides/workers.md asks for are enough, and a missing one is named."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

from callmeter.clock import SystemClock
from callmeter.log.definitions import edit_kafka
from callmeter.log.kafka_admin import apply_topics
from callmeter.log.kafka_appender import KafkaAppender
from callmeter.log.kafka_settings import KafkaSettings
from callmeter.log.kafka_state import read_rows
from callmeter.log.record import NewRecord
from callmeter.schema.budgets import Budget, next_version
from callmeter.schema.status import decode_status
from support.cli import callmeter, started
from support.kafka_server import cannot_start, skip_or_fail
from support.metering import call_end, envelope, source
from support.secure_kafka import PASSWORD, USER, SecureKafka

pytestmark = [pytest.mark.kafka, pytest.mark.slow]
GUIDE = Path(__file__).parents[2] / "docs/guides/workers.md"
OPERATIONS = {
    "Read": AclOperation.READ,
    "Write": AclOperation.WRITE,
    "Describe": AclOperation.DESCRIBE,
}
RESOURCES = {
    "topic": ResourceType.TOPIC,
    "group": ResourceType.GROUP,
    "transactional id": ResourceType.TRANSACTIONAL_ID,
}


class GuardedKafka(SecureKafka):
    """It asks for rights, but of nobody on the listener that asks for no name."""

    def _properties(self) -> dict[str, str]:
        return super()._properties() | {
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": "User:ANONYMOUS",
        }


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[GuardedKafka]:
    reason = cannot_start()
    if reason is not None:
        skip_or_fail(reason)
    kafka = GuardedKafka(tmp_path)
    kafka.start()
    try:
        yield kafka
    finally:
        kafka.server.stop()


def rights(partitions: int) -> set[tuple[str, str, str]]:
    """(resource, name, operation) of the guide's table, for a meter and a watch of a prefix."""
    table = GUIDE.read_text().partition("## Rights in Kafka")[2].partition("A prefixed ACL")[0]
    found = set()
    for line in table.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) != 4 or cells[0] not in RESOURCES:
            continue
        names = re.findall(r"`(P\.[\w.…-]+)`", cells[1])
        if cells[0] == "transactional id":
            names = [f"P.{stage}.{n}" for stage in ("meter", "watch") for n in range(partitions)]
        for name in names:
            for operation in OPERATIONS:
                if operation in cells[2].partition(";")[0]:
                    found.add((cells[0], name.replace("P.", "callmeter.", 1), operation))
    return found


def grant(kafka: GuardedKafka, wanted: set[tuple[str, str, str]]) -> None:
    admin = AdminClient({"bootstrap.servers": kafka.plain})
    acls = [
        AclBinding(
            RESOURCES[resource], name, ResourcePatternType.LITERAL, f"User:{USER}", "*",
            OPERATIONS[operation], AclPermissionType.ALLOW,
        )
        for resource, name, operation in wanted
    ]  # fmt: skip
    for future in admin.create_acls(acls).values():
        future.result(30)


def test_the_guide_s_rights_are_enough_and_a_missing_one_is_named(guarded: GuardedKafka) -> None:
    plain = KafkaSettings.from_url(f"kafka://{guarded.plain}")
    asyncio.run(apply_topics(plain, partitions=2))
    url = f"kafka://{USER}:{quote(PASSWORD, safe='')}@localhost:{guarded.port['SASL_PLAINTEXT']}"
    wanted = rights(2)
    assert len({name for _, name, _ in wanted}) > 14, "the guide's table has moved"
    grant(guarded, {right for right in wanted if right[0] != "transactional id"})
    until_told(
        url,
        "may work as no part; collector lacks Write on topic events",
        "; meter lacks Write on transactional id meter.0 and 1 more; ",
        "sink lacks Read on topic metered",
        "Read and Describe on group sink, ",
    )
    lacking = callmeter("worker", "--kafka", url)
    assert lacking.code == 78, lacking.err
    assert PASSWORD not in lacking.err
    grant(guarded, wanted)
    until_told(url, "may work as meter, watch; collector lacks")
    now_us = SystemClock().now_us()
    edit_kafka(plain, lambda _: next_version(None, Budget(id="all", limit_pico="1000000"), now_us))

    async def send() -> None:
        call = call_end(started_us=now_us, ts_us=now_us, cost_pico="77")
        value = envelope([call], sent_us=now_us)
        appender = await KafkaAppender.start(plain)
        await appender.append([NewRecord("events", source(1).encode(), value)])
        await appender.close()

    with (
        started("worker", "--kafka", url, "-q") as meter,
        started("worker", "--kafka", url, "--watch", "-q") as watch,
    ):
        until_s = time.monotonic() + 90
        spent: list[str] = []
        sent = False
        while spent != ["77"]:
            for worker in (meter, watch):
                assert worker.poll() is None, worker.communicate()
            assert time.monotonic() < until_s
            if not sent and any(b"b:all" in asyncio.run(_state(plain, p)) for p in range(2)):
                asyncio.run(send())
                sent = True
            rows = [asyncio.run(read_rows(plain, "budget-status", p)) for p in range(2)]
            spent = [decode_status(v).spend_pico for each in rows for v in each.values()]
            time.sleep(0.2)


def until_told(url: str, *texts: str) -> None:
    """Until the doctor says this of the rights: a broker takes a moment to heed a grant."""
    until_s = time.monotonic() + 60
    while True:
        ran = callmeter("doctor", "--kafka", url, "--json")
        assert PASSWORD not in ran.out + ran.err
        (found,) = [each for each in json.loads(ran.out) if each["piece"] == "rights"]
        if all(text in found["detail"] for text in texts):
            assert found["state"] == "notice"
            return
        assert time.monotonic() < until_s, found["detail"]


async def _state(settings: KafkaSettings, partition: int) -> dict[bytes, bytes]:
    return await read_rows(settings, "meter-state", partition)
