"""``callmeter export``: stored rows as a file that the engine writes."""

from __future__ import annotations

import signal
import sys
from datetime import datetime
from pathlib import Path

import click

from callmeter.cli import options, target
from callmeter.errors import UsageError

_TERMINATED = 128 + signal.SIGTERM


@click.group(name="export")
def command() -> None:
    """Write what is stored into a file for other programs."""


@command.command(name="calls")
@options.period
@options.output
@click.option(
    "--where", multiple=True, metavar="DIM=VALUE", help="Only where this holds. Repeatable."
)
@options.project
@options.directory
@options.store
@options.verbosity
def calls(
    since: datetime | None,
    until: datetime | None,
    file_format: str | None,
    output: Path | None,
    where: tuple[str, ...],
    project: str | None,
    directory: Path | None,
    store_url: str | None,
    quiet: bool,
) -> None:
    r"""Write every finished call and operation of a period, in no order.

    ClickHouse writes the file; it appears under its name when it is whole, and an export that was
    cut short leaves nothing. Times are UTC, durations microseconds, unknown is null. While
    `callmeter up` runs, its answer is held in memory: give a period if there are millions.

    \b
    Example: callmeter export calls --since 7d --output calls.parquet
             callmeter export calls --where model=gpt-4o --format jsonl --output calls.txt
    """
    chosen = options.output_format(output, file_format)
    if output is None or chosen is None:
        raise UsageError("into which file? give --output FILE")
    from callmeter_sinks.queries import Queries

    # As an exception, so that what has been written in part is removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(_TERMINATED))
    with target.reading(directory, store_url) as store:
        Queries(store).export_calls(
            output, chosen, since=since, until=until, project=project,
            filters=options.filters(where),
        )  # fmt: skip
    if not quiet:
        click.echo(f"{output} ({output.stat().st_size:,} bytes)")
