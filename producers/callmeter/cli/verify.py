"""``callmeter verify``: do the books agree?"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import click
import orjson

from callmeter.cli import options, target
from callmeter.cli.console import console
from callmeter.cli.verdict import exit_code, show_verdict


@click.command(name="verify")
@options.directory
@options.store
@options.period
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@options.verbosity
def command(
    directory: Path | None,
    store_url: str | None,
    since: datetime | None,
    until: datetime | None,
    as_json: bool,
    quiet: bool,
) -> int:
    """Compare rollups with raw rows, control totals with their ranges, counts with the ledger.

    Exit code 0: equal. 1: something differs. 2: a part cannot be verified, because retention
    removed it or envelopes are missing.
    """
    from callmeter_sinks.verify import verify

    with target.reading(directory, store_url) as store:
        result = verify(store, since=since, until=until)
    if as_json:
        click.echo(orjson.dumps(result.to_json()))
        return exit_code(result)
    return show_verdict(result, console(), quiet=quiet)
