"""``callmeter collector``: HTTP in front of Kafka."""

from __future__ import annotations

import asyncio

import click

from callmeter.cli import options


@click.command(name="collector")
@options.required_kafka
@options.listening
@options.verbosity
def command(
    kafka_url: str,
    host: str,
    port: int,
    api_keys: tuple[str, ...],
    read_keys: tuple[str, ...],
    quiet: bool,
) -> None:
    r"""Take envelopes over HTTP and acknowledge each once Kafka has it; until SIGTERM.

    \b
    Example: callmeter collector --kafka kafka://localhost:9092
    """
    from callmeter.collector.app import run_collector
    from callmeter.collector.budget_sources import KafkaBudgets
    from callmeter.collector.budgets import budget_routes
    from callmeter.collector.config import CollectorConfig
    from callmeter.collector.keys import KeyRing
    from callmeter.log.kafka_appender import KafkaAppender
    from callmeter.log.kafka_settings import KafkaSettings

    config = CollectorConfig(host=host, port=port, keys=KeyRing.parse(api_keys, read_keys))

    def started(url: str) -> None:
        if not quiet:
            click.echo(f"the collector listens on {url}; Ctrl-C stops it")

    async def run() -> None:
        settings = KafkaSettings.from_url(kafka_url)
        appender = await KafkaAppender.start(settings)
        routes = [budget_routes(KafkaBudgets(settings))]
        await run_collector(appender, config, extra_routes=routes, on_started=started)

    asyncio.run(run())
