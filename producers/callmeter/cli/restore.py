"""``callmeter restore``: a backup as a data directory again."""

from __future__ import annotations

from pathlib import Path

import click

from callmeter.cli import options
from callmeter.cli.archive import read_archive


@click.command(name="restore")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@options.directory
@options.verbosity
def command(file: Path, directory: Path | None, quiet: bool) -> None:
    r"""Put a backup back as the data directory, which must not exist or be empty.

    Every file is compared with the backup's own list before the directory appears. What came after
    the backup is not in it: producers that still have it may send it again, and nothing counts
    twice. `callmeter verify` names what is missing.

    \b
    Example: callmeter restore callmeter-2026-11-21.tar.gz --dir ./.callmeter
    """
    home = directory or Path(options.DEFAULT_DIR)
    manifest = read_archive(file, home)
    if not quiet:
        click.echo(f"{home}: {len(manifest.files):,} files, {manifest.bytes:,} bytes put back")
