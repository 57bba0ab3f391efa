"""``callmeter dashboard``: the dashboard over a store, without a collector."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from callmeter.cli import options
from callmeter.cli.serving import keys_file as keys_file_option
from callmeter.cli.serving import tls

if TYPE_CHECKING:
    from callmeter.collector.keywatch import KeyWatch
    from callmeter.collector.listening import Certificate

_LOOK_S = 1.0


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
@keys_file_option
@tls
@options.verbosity
def command(
    store_url: str,
    host: str,
    port: int,
    read_keys: tuple[str, ...],
    keys_file: Path | None,
    tls_cert: Path | None,
    tls_key: Path | None,
    quiet: bool,
) -> None:
    r"""Serve the dashboard over a store until Ctrl-C. `callmeter up` has it built in.

    Keys of the file that may read sign in, until they are revoked. SIGHUP reads file and
    certificate anew at once.

    \b
    Examples: callmeter dashboard --store clickhouse://localhost:8123/callmeter
              callmeter dashboard --host 0.0.0.0 --keys-file keys.json --tls-cert … --tls-key …
    """
    from callmeter.collector.config import CollectorConfig
    from callmeter.collector.keys import KeyRing
    from callmeter.collector.keywatch import KeyWatch
    from callmeter.collector.listening import certificate_of
    from callmeter.embedded import reading_access
    from callmeter_sinks.clickhouse.opening import open_store
    from callmeter_sinks.dashboard import dashboard_app, serve

    keys = KeyRing.parse((), read_keys)
    # Its checks of file and pair are the collector's; of the address the dashboard has its own.
    config = CollectorConfig(keys=keys, keys_file=keys_file, tls_cert=tls_cert, tls_key=tls_key)
    certificate = certificate_of(config)
    watch = None if keys_file is None else KeyWatch(keys_file, keys)

    def started(url: str) -> None:
        if not quiet:
            click.echo(f"the dashboard is at {url}; Ctrl-C stops it")

    async def run() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        app = dashboard_app(store, access=reading_access(keys))
        async with _following(watch, certificate):
            secure = None if certificate is None else certificate.context
            await serve(app, host, port, stop=stop, tls=secure, on_started=started)

    store = open_store(store_url)
    try:
        asyncio.run(run())
    finally:
        store.close()


@asynccontextmanager
async def _following(
    watch: KeyWatch | None, certificate: Certificate | None
) -> AsyncIterator[None]:
    """Keep keys and certificate as their files are; SIGHUP looks at once."""

    def look() -> None:
        if watch is not None:
            watch.look()
        if certificate is not None:
            certificate.look(anyway=True)

    async def certify() -> None:
        while certificate is not None:
            await asyncio.sleep(_LOOK_S)
            certificate.look()

    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, look)
    tasks = [asyncio.create_task(certify())]
    if watch is not None:
        tasks.append(asyncio.create_task(watch.run()))
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if watch is not None:
            watch.note()
