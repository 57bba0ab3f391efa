"""``callmeter sink``: one process that moves what was metered into ClickHouse."""

from __future__ import annotations

import asyncio
import signal
from contextlib import ExitStack

import click

from callmeter.cli import options
from callmeter.cli.garbage import collect_seldom
from callmeter.errors import UsageError
from callmeter.schema.topics import METERED


@click.command(name="sink")
@options.required_kafka
@options.store
@click.option("--drain", is_flag=True, help="End at the end of the log as it was at the start.")
@click.option(
    "--serve", "serve_port", type=click.IntRange(0, 65535), default=None, metavar="PORT",
    help="With a chdb: store, let others on this machine read it at this port (0: a free one).",
)  # fmt: skip
@click.option(
    "--accept-loss", is_flag=True,
    help="Go on behind records that the log's retention removed; the loss is recorded.",
)  # fmt: skip
@click.option(
    "--metrics", "metrics_at", metavar="HOST:PORT", default=None, envvar="CALLMETER_SINK_METRICS",
    help="Serve /metrics, /healthz and /readyz here; a port alone is on loopback, 0 a free one.",
)  # fmt: skip
@options.verbosity
def command(
    kafka_url: str,
    store_url: str | None,
    drain: bool,
    serve_port: int | None,
    accept_loss: bool,
    metrics_at: str | None,
    quiet: bool,
) -> None:
    r"""Insert metered records into ClickHouse, exactly once, until SIGTERM.

    With them go alerts, budgets, the status of budgets, and the calls in flight.
    The store itself says how far it is, so a sink may be killed at any time and several may run.
    With --drain it takes every partition for itself; sinks beside it give way and claim them back.

    \b
    Example: callmeter sink --kafka kafka://localhost:9092 --store clickhouse://localhost:8123/callmeter
    """
    from callmeter.log.kafka_admin import read_log_id
    from callmeter.log.kafka_consumer import KafkaGroupReader
    from callmeter.log.kafka_settings import KafkaSettings
    from callmeter_sinks.clickhouse.chdb_store import ChdbStore
    from callmeter_sinks.clickhouse.migrate import check_schema, migrate
    from callmeter_sinks.clickhouse.opening import open_shards
    from callmeter_sinks.clickhouse.shim import ShimServer
    from callmeter_sinks.group import SinkGroup
    from callmeter_sinks.sink import Sink
    from callmeter_sinks.streams import STREAMS

    if store_url is None:
        raise UsageError("into which store? give --store URL, or set CALLMETER_STORE")
    settings = KafkaSettings.from_url(kafka_url)
    with ExitStack() as stack:
        shards = open_shards(store_url)
        stack.callback(shards.close)
        store = shards.stores[0]
        if isinstance(store, ChdbStore):
            migrate(store)
        else:
            for each in shards.stores:
                check_schema(each)
        if serve_port is not None:
            if not isinstance(store, ChdbStore):
                raise UsageError("--serve is for a chdb: store; a server is asked directly")
            server = stack.enter_context(ShimServer(store, port=serve_port))
            if not quiet:
                click.echo(f"the store is served at {server.url}")
        log_id = asyncio.run(read_log_id(settings))

        def make(topic: str) -> Sink:
            group = "sink" if topic == METERED.name else f"sink.{topic}"
            source = KafkaGroupReader(settings, topic, group=group, log_id=log_id, whole=drain)
            stack.callback(source.close)
            return Sink(shards, source, accept_loss=accept_loss)

        sink = SinkGroup([make(topic) for topic in STREAMS])
        if metrics_at is not None:
            from callmeter.cli.sink_metrics import sink_monitor

            monitor = stack.enter_context(sink_monitor(metrics_at, lambda: sink.stats))
            if not quiet:
                click.echo(f"metrics are served at {monitor.url}/metrics")
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: sink.stop())
        collect_seldom()
        stats = sink.drain() if drain else sink.run()
    if not quiet:
        click.echo(f"{stats.events:,} events in {stats.inserts:,} inserts")
