"""``callmeter worker``: one process over Kafka, a meter or a watch."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

import click

from callmeter.cli import options
from callmeter.cli.garbage import collect_seldom

if TYPE_CHECKING:
    from callmeter.cli.monitor import Monitor
    from callmeter.log.kafka_settings import KafkaSettings
    from callmeter_processors.runtime.stats import RuntimeStats
    from callmeter_processors.step import StepFactory

logger = logging.getLogger(__name__)

_PRICES_S = 10.0
#: A worker whose loop has not turned for so long is told to be ill.
_STUCK_S = 60.0


@click.command(name="worker")
@options.required_kafka
@click.option(
    "--accept-loss", is_flag=True,
    help="Go on behind records that the log's retention removed; the loss is recorded.",
)  # fmt: skip
@click.option(
    "--watch", is_flag=True, help="Watch budgets instead: limits, objectives, running windows."
)
@click.option(
    "--metrics", "metrics_at", metavar="HOST:PORT", default=None, envvar="CALLMETER_WORKER_METRICS",
    help="Serve /metrics, /healthz and /readyz here; a port alone is on loopback, 0 a free one.",
)  # fmt: skip
@options.verbosity
def command(
    kafka_url: str, accept_loss: bool, watch: bool, metrics_at: str | None, quiet: bool
) -> None:
    r"""Judge, price and fold envelopes until SIGTERM; start as many as you like.

    With --watch, follow what meters hand on about budgets: a second kind of worker, of which there
    should be at least one. Without it spend is counted all the same, and nobody is told.

    The partitions are shared out among the workers of a prefix, at most one worker each. State,
    outputs and position move in one Kafka transaction, so a worker may be killed at any time.

    \b
    Examples: callmeter worker --kafka kafka://localhost:9092
              callmeter worker --kafka kafka://localhost:9092 --watch --metrics 127.0.0.1:9465
    """
    from callmeter_processors.runtime.stats import RuntimeStats
    from callmeter_processors.runtime.worker import run_worker

    stats = RuntimeStats()
    with ExitStack() as stack:
        if metrics_at is not None:
            monitor = _monitor(metrics_at, "watch" if watch else "meter", stats)
            stack.enter_context(monitor)
            if not quiet:
                click.echo(f"metrics are served at {monitor.url}/metrics")
        collect_seldom()
        if watch:
            run_worker(
                kafka_url,
                _watches,
                name="watch",
                source="spend",
                state="watch-state",
                accept_loss=accept_loss,
                stats=stats,
            )
        else:
            run_worker(kafka_url, _meters, accept_loss=accept_loss, stats=stats)


def _monitor(address: str, stage: str, stats: RuntimeStats) -> Monitor:
    from callmeter.cli.monitor import Monitor
    from callmeter_processors.runtime.metrics import WorkerMetrics, ailing, unready

    return Monitor(
        address,
        [WorkerMetrics({stage: stats})],
        unready=lambda: unready(stats),
        ailing=lambda: ailing(stats, _STUCK_S, time.monotonic()),
    )


def _watches(_settings: KafkaSettings) -> StepFactory:
    from callmeter_processors.watch.step import watch_factory

    return watch_factory()


def _meters(settings: KafkaSettings) -> StepFactory:
    """Meters that price by the published book; the first worker publishes the installed one."""
    from callmeter.cli.compiled import compiled_parts
    from callmeter.log.kafka_state import publish, read_table
    from callmeter.pricing import book_to_json, installed_book
    from callmeter.pricing.live import BOOK_KEY
    from callmeter.pricing.watching import BookWatch
    from callmeter_processors.meter import meter_factory

    compiled, words = compiled_parts()
    logger.log(logging.INFO if compiled else logging.WARNING, "%s", words)

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
