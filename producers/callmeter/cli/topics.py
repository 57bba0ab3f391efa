"""``callmeter topics``: the topics of a prefix on Kafka."""

from __future__ import annotations

import asyncio

import click

from callmeter.cli import options
from callmeter.schema.topics import DEFAULT_PARTITIONS


@click.group(name="topics")
def command() -> None:
    """The topics of a prefix on Kafka."""


@command.command(name="apply")
@options.required_kafka
@click.option(
    "--partitions", default=DEFAULT_PARTITIONS, show_default=True, type=click.IntRange(1, 10_000),
    help="Partitions of the topics; fixed for the prefix's life.",
)  # fmt: skip
@click.option(
    "--replication", default=None, type=click.IntRange(1, 10),
    help="Copies of each partition; by default 3, or as many as there are brokers.",
)  # fmt: skip
@click.option("--print", "only_print", is_flag=True, help="Print kafka-topics.sh commands instead.")
@options.verbosity
def apply(
    kafka_url: str, partitions: int, replication: int | None, only_print: bool, quiet: bool
) -> None:
    r"""Create the topics that are missing, and the log's id; running it again does nothing.

    A prefix whose topics have another number of partitions is refused: growing means a new prefix
    (`kafka://host:9092?prefix=NAME`) and draining the old one.

    \b
    Example: callmeter topics apply --kafka kafka://localhost:9092
    """
    from callmeter.log.kafka_admin import apply_topics, topic_commands
    from callmeter.log.kafka_settings import KafkaSettings

    settings = KafkaSettings.from_url(kafka_url)
    if only_print:
        lines = topic_commands(settings, partitions=partitions, replication=replication or 3)
        for line in lines:
            click.echo(line)
        return
    done = asyncio.run(apply_topics(settings, partitions=partitions, replication=replication))
    if quiet:
        return
    for name in done.created:
        click.echo(f"created {name}")
    click.echo(f"log {done.log_id}: {done.partitions} partitions, {len(done.created)} topics made")
