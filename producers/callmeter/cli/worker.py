"""``callmeter worker``: one process over Kafka, a meter or a watch."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import click

from callmeter.cli import options

if TYPE_CHECKING:
    from callmeter.log.kafka_settings import KafkaSettings
    from callmeter_processors.step import StepFactory

_PRICES_S = 10.0


@click.command(name="worker")
@options.required_kafka
@click.option(
    "--accept-loss", is_flag=True,
    help="Go on behind records that the log's retention removed; the loss is recorded.",
)  # fmt: skip
@click.option(
    "--watch", is_flag=True, help="Watch budgets instead: limits, objectives, running windows."
)
@options.verbosity
def command(kafka_url: str, accept_loss: bool, watch: bool, quiet: bool) -> None:
    r"""Judge, price and fold envelopes until SIGTERM; start as many as you like.

    With --watch, follow what meters hand on about budgets: a second kind of worker, of which there
    should be at least one. Without it spend is counted all the same, and nobody is told.

    The partitions are shared out among the workers of a prefix, at most one worker each. State,
    outputs and position move in one Kafka transaction, so a worker may be killed at any time.

    \b
    Examples: callmeter worker --kafka kafka://localhost:9092
              callmeter worker --kafka kafka://localhost:9092 --watch
    """
    from callmeter_processors.runtime.worker import run_worker

    if watch:
        run_worker(
            kafka_url,
            _watches,
            name="watch",
            source="spend",
            state="watch-state",
            accept_loss=accept_loss,
        )
        return
    run_worker(kafka_url, _meters, accept_loss=accept_loss)


def _watches(_settings: KafkaSettings) -> StepFactory:
    from callmeter_processors.watch.step import watch_factory

    return watch_factory()


def _meters(settings: KafkaSettings) -> StepFactory:
    """Meters that price by the published book; the first worker publishes the installed one."""
    from callmeter.log.kafka_state import publish, read_table
    from callmeter.pricing import book_to_json, installed_book
    from callmeter.pricing.live import BOOK_KEY
    from callmeter.pricing.watching import BookWatch
    from callmeter_processors.meter import meter_factory

    def published() -> bytes | None:
        return asyncio.run(read_table(settings, "prices")).get(BOOK_KEY)

    data = published()
    if data is None:
        data = book_to_json(installed_book())
        asyncio.run(publish(settings, "prices", {BOOK_KEY: data}))
    # A daemon: it has nothing to write, and ends with the worker.
    prices = BookWatch(data, published, _PRICES_S)
    prices.start()
    return meter_factory(prices.pricer)
