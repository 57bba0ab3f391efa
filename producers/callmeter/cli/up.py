"""``callmeter up``: everything in one process until Ctrl-C."""

from __future__ import annotations

import signal
import threading
from pathlib import Path

import click

from callmeter.cli import options
from callmeter.cli.garbage import collect_seldom
from callmeter.cli.serving import Serving, serving_options
from callmeter.cli.up_metrics import metrics_routes
from callmeter.embedded import Embedded, EmbeddedOptions

_CHECK_S = 0.5


@click.command(name="up")
@options.directory
@options.listening
@serving_options
@click.option(
    "--notify-config", type=click.Path(path_type=Path, dir_okay=False), default=None,
    metavar="FILE", help="Tell these targets of alerts: see docs/guides/notify.md.",
)  # fmt: skip
@options.verbosity
def command(
    directory: Path | None,
    host: str,
    port: int,
    api_keys: tuple[str, ...],
    read_keys: tuple[str, ...],
    serving: Serving,
    notify_config: Path | None,
    quiet: bool,
) -> None:
    r"""Run the whole pipeline in this process: collector, log, meter, sink and store.

    What the collector acknowledged is on disk. A kill -9 loses nothing: the next `up` goes on.
    Reports can be asked for while it runs; /metrics has every part of it.

    \b
    Example: callmeter up          (then, in your program: callmeter.init())
    """
    home = directory or Path(options.DEFAULT_DIR)
    stopping = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopping.set())
    settings = EmbeddedOptions(
        collector=serving.config(host, port, api_keys, read_keys),
        notify_config=notify_config,
        routes=metrics_routes,
    )
    with Embedded(home, settings) as pipeline:
        if not quiet:
            click.echo(f"callmeter is up: send to {pipeline.url}, data in {home}; Ctrl-C stops it")
        collect_seldom()
        while not stopping.wait(_CHECK_S):
            pipeline.check()
        if not quiet:
            click.echo("stopping: what was acknowledged is being stored")
