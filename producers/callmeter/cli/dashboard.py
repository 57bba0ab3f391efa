"""``callmeter dashboard``: the dashboard over a store, without a collector."""

from __future__ import annotations

import asyncio
import signal

import click

from callmeter.cli import options


@click.command(name="dashboard")
@click.option(
    "--store", "store_url", envvar="CALLMETER_STORE", required=True, metavar="URL",
    help="ClickHouse: clickhouse://user:password@host:port/db, clickhouses://…, or chdb:DIR.",
)  # fmt: skip
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", default=options.DEFAULT_PORT, show_default=True, type=click.IntRange(0, 65535),
    help="Port to listen on; 0 takes a free one.",
)  # fmt: skip
@click.option(
    "--read-key", "read_keys", multiple=True, envvar="CALLMETER_READ_KEYS",
    metavar="KEY[:PROJECT]", help="Key to sign in with; needed beyond loopback. Repeatable.",
)  # fmt: skip
@options.verbosity
def command(
    store_url: str,
    host: str,
    port: int,
    read_keys: tuple[str, ...],
    quiet: bool,
) -> None:
    r"""Serve the dashboard over a store until Ctrl-C. `callmeter up` has it built in.

    \b
    Example: callmeter dashboard --store clickhouse://localhost:8123/callmeter
    """
    from callmeter.collector.keys import KeyRing
    from callmeter.embedded import reading_access
    from callmeter_sinks.clickhouse.store import open_store
    from callmeter_sinks.dashboard import dashboard_app, serve

    keys = KeyRing.parse((), read_keys)

    def started(url: str) -> None:
        if not quiet:
            click.echo(f"the dashboard is at {url}; Ctrl-C stops it")

    async def run() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        app = dashboard_app(store, access=reading_access(keys))
        await serve(app, host, port, stop=stop, on_started=started)

    store = open_store(store_url)
    try:
        asyncio.run(run())
    finally:
        store.close()
