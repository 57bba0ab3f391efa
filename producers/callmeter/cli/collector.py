"""``callmeter collector``: HTTP in front of Kafka."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from typing import TYPE_CHECKING

import click

from callmeter.cli import options
from callmeter.cli.serving import Serving, serving_options

if TYPE_CHECKING:
    from callmeter_sinks.queries import Queries


@click.command(name="collector")
@options.required_kafka
@options.store
@options.listening
@serving_options
@options.verbosity
def command(
    kafka_url: str,
    store_url: str | None,
    host: str,
    port: int,
    api_keys: tuple[str, ...],
    read_keys: tuple[str, ...],
    serving: Serving,
    quiet: bool,
) -> None:
    r"""Take envelopes over HTTP and acknowledge each once Kafka has it; until SIGTERM.

    With --store it also answers questions about experiments, folders and series.

    \b
    Example: callmeter collector --kafka kafka://localhost:9092
    """
    from callmeter.collector.alerts import alert_routes
    from callmeter.collector.app import run_collector
    from callmeter.collector.budget_sources import KafkaBudgets
    from callmeter.collector.budgets import budget_routes
    from callmeter.collector.experiments import experiment_routes
    from callmeter.log.kafka_appender import KafkaAppender
    from callmeter.log.kafka_pieces import KafkaPieces
    from callmeter.log.kafka_settings import KafkaSettings
    from callmeter.schema.topics import ALERTS

    config = serving.config(host, port, api_keys, read_keys)

    def started(url: str) -> None:
        if not quiet:
            click.echo(f"the collector listens on {url}; Ctrl-C stops it")

    async def run() -> None:
        settings = KafkaSettings.from_url(kafka_url)
        appender = await KafkaAppender.start(settings)
        routes = [
            budget_routes(KafkaBudgets(settings)),
            alert_routes(KafkaPieces(settings, ALERTS.name)),
            *experiment_routes(reader),
        ]
        await run_collector(appender, config, extra_routes=routes, on_started=started)

    with ExitStack() as stack:
        reader = _reader(store_url, stack)
        asyncio.run(run())


def _reader(store_url: str | None, stack: ExitStack) -> Queries | None:
    """Questions to a store, which is closed with the stack; None without one."""
    if store_url is None:
        return None
    from callmeter_sinks.clickhouse.opening import open_store
    from callmeter_sinks.queries import Queries

    store = open_store(store_url)
    stack.callback(store.close)
    return Queries(store)
