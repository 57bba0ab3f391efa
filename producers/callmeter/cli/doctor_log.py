"""The doctor's look at Kafka: topics and their settings, groups and their lag, the price book."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from callmeter.cli.doctor_finding import Figure, Finding, State, looked
from callmeter.log.kafka_settings import KafkaSettings

#: Group → the topic it reads.
GROUPS = {"meter": "events", "watch": "spend", "sink": "metered"}
#: Topics whose records the figures stand on: another policy there loses or reorders them.
_VITAL = ("cleanup.policy", "message.timestamp.type")
#: Records that wait beyond this are worth a look: some seconds of a busy fleet.
LAG_NOTICE = 10_000


def look_at_kafka(kafka_url: str) -> Iterator[Finding]:
    """Findings in the order in which trouble spreads."""
    reached = list(looked("kafka", "kafka-security.md", lambda: _topics(kafka_url)))
    yield from reached
    if reached[0].state is State.WRONG:
        return
    settings = KafkaSettings.from_url(kafka_url)
    yield from looked("rights", "workers.md#rights-in-kafka", lambda: _rights(settings))
    yield from looked("topics", "operations.md#topics", lambda: _setups(settings))
    yield from _lags(settings)
    yield from looked("prices", "prices.md", lambda: _prices(settings))


def _topics(kafka_url: str) -> Finding:
    from callmeter.log.kafka_admin import check_topics, read_log_id

    settings = KafkaSettings.from_url(kafka_url)

    async def look() -> str:
        partitions = await check_topics(settings)
        return f"{settings.display}: log {await read_log_id(settings)}, {partitions} partitions"

    return Finding("kafka", State.OK, asyncio.run(look()), "kafka-security.md")


def _rights(settings: KafkaSettings) -> Finding:
    from callmeter.cli.doctor_rights import look_at_rights
    from callmeter.log.kafka_admin import check_topics

    return look_at_rights(settings, asyncio.run(check_topics(settings)))


def _setups(settings: KafkaSettings) -> Finding:
    from callmeter.log.kafka_lag import topic_setups

    guide = "operations.md#topics"
    setups = asyncio.run(topic_setups(settings))
    differing = [
        f"{each.name}: {key} is {found}, not {wanted}"
        for each in setups
        for key, (wanted, found) in sorted(each.differing.items())
    ]
    vital = [line for line in differing if any(f": {key} is" in line for key in _VITAL)]
    copies = min((each.replicas for each in setups), default=0)
    figures = (Figure("topic_replicas", copies),)
    if vital:
        return Finding("topics", State.WRONG, "; ".join(vital), guide, figures)
    if differing:
        return Finding("topics", State.NOTICE, "; ".join(differing), guide, figures)
    if copies < 2:
        only = f"{len(setups)} topics as they should be, in one copy: a lost broker is lost data"
        return Finding("topics", State.NOTICE, only, guide, figures)
    return Finding(
        "topics", State.OK, f"{len(setups)} topics, {copies} copies or more", guide, figures
    )


def _lags(settings: KafkaSettings) -> Iterator[Finding]:
    from callmeter.errors import CallmeterError
    from callmeter.log.kafka_lag import group_lags

    guide = "operations.md#lag"
    try:
        lags = asyncio.run(group_lags(settings, GROUPS))
    except CallmeterError as exc:
        yield Finding("lag", State.WRONG, str(exc), guide)
        return
    for each in lags:
        # A transaction's marker takes an offset: a partition at rest may show one record.
        waiting = max(0, each.records - each.partitions)
        figures = (
            Figure("group_lag_records", waiting, {"group": each.group}),
            Figure("group_members", each.members, {"group": each.group}),
        )
        text = f"{each.members} at work, {waiting:,} records wait in {each.topic}"
        state = State.OK if waiting <= LAG_NOTICE else State.NOTICE
        if each.members == 0:
            text = f"nobody is at work, {waiting:,} records wait in {each.topic}"
            # Without a watch spend is counted all the same, and nobody is told.
            state = State.NOTICE if each.group == "watch" else State.WRONG
        yield Finding(each.group, state, text, guide, figures)


def _prices(settings: KafkaSettings) -> Finding:
    from callmeter.log.kafka_state import read_table
    from callmeter.pricing import book_from_json
    from callmeter.pricing.live import BOOK_KEY

    data = asyncio.run(read_table(settings, "prices")).get(BOOK_KEY)
    if data is None:
        text = "no price book is published; the first worker publishes the installed one"
        return Finding("prices", State.NOTICE, text, "prices.md")
    return Finding(
        "prices", State.OK, f"book {book_from_json(data).version} is published", "prices.md"
    )
