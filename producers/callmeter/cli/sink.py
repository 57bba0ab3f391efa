"""``callmeter sink``: one process that moves what was metered into ClickHouse."""

from __future__ import annotations

import signal
from contextlib import ExitStack

import click

from callmeter.cli import options
from callmeter.errors import UsageError


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
@options.verbosity
def command(
    kafka_url: str,
    store_url: str | None,
    drain: bool,
    serve_port: int | None,
    accept_loss: bool,
    quiet: bool,
) -> None:
    r"""Insert metered records into ClickHouse, exactly once, until SIGTERM.

    The store itself says how far it is, so a sink may be killed at any time and several may run.

    \b
    Example: callmeter sink --kafka kafka://localhost:9092 --store clickhouse://localhost:8123/callmeter
    """
    from callmeter.log.kafka_settings import KafkaSettings
    from callmeter_sinks.clickhouse.migrate import check_schema, migrate
    from callmeter_sinks.clickhouse.shim import StoreServer
    from callmeter_sinks.clickhouse.store import open_store
    from callmeter_sinks.sink import Sink
    from callmeter_sinks.source import KafkaSource

    if store_url is None:
        raise UsageError("into which store? give --store URL, or set CALLMETER_STORE")
    embedded = store_url.startswith("chdb:")
    if serve_port is not None and not embedded:
        raise UsageError("--serve is for a chdb: store; a server is asked directly")
    settings = KafkaSettings.from_url(kafka_url)
    with ExitStack() as stack:
        store = open_store(store_url)
        stack.callback(store.close)
        if embedded:
            migrate(store)
        else:
            check_schema(store)
        if serve_port is not None:
            server = StoreServer(store, port=serve_port)
            stack.callback(server.stop)
            server.start()
            if not quiet:
                click.echo(f"the store is served at {server.url}")
        source = KafkaSource(settings)
        stack.callback(source.close)
        sink = Sink(store, source, accept_loss=accept_loss)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: sink.stop())
        stats = sink.drain() if drain else sink.run()
    if not quiet:
        click.echo(f"{stats.events:,} events in {stats.inserts:,} inserts")
