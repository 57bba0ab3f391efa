"""``callmeter backup``: an embedded data directory into one file."""

from __future__ import annotations

from pathlib import Path

import click

from callmeter.cli import options, target
from callmeter.cli.archive import at_rest, write_archive


@click.command(name="backup")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@options.directory
@options.verbosity
def command(file: Path, directory: Path | None, quiet: bool) -> None:
    r"""Write log, state and store of a data directory to FILE, all at one cut.

    The directory must be at rest: stop `callmeter up` first. Producers with a spool or a queue
    keep what they have meanwhile and send it afterwards. FILE ends in .tar or .tar.gz and is never
    overwritten.

    \b
    Example: callmeter backup callmeter-2026-11-21.tar.gz
    """
    home = directory or Path(options.DEFAULT_DIR)
    target.require_data(home)
    with at_rest(home):
        manifest = write_archive(home, file)
    if not quiet:
        click.echo(f"{file}: {len(manifest.files):,} files, {manifest.bytes:,} bytes of {home}")
