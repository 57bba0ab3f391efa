"""``callmeter migrate``: bring a store's schema up to this version."""

from __future__ import annotations

import click

from callmeter.cli import options
from callmeter.errors import UsageError


@click.command(name="migrate")
@options.store
@click.option("--dry-run", is_flag=True, help="List what would be run, and run nothing.")
@options.verbosity
def command(store_url: str | None, dry_run: bool, quiet: bool) -> int:
    r"""Bring the schema of a ClickHouse up to this version; running it again does nothing.

    A store that a newer callmeter has migrated is refused.

    \b
    Example: callmeter migrate --store clickhouse://user:password@localhost:8123/callmeter
    """
    from callmeter_sinks.clickhouse.migrate import migrate
    from callmeter_sinks.clickhouse.store import open_store

    if store_url is None:
        raise UsageError("which store? give --store URL, or set CALLMETER_STORE")
    store = open_store(store_url)
    try:
        report = migrate(store, dry_run=dry_run)
    finally:
        store.close()
    if quiet:
        return 0
    for step in report.steps:
        done = "done now" if step.version in report.applied else step.state.value
        click.echo(f"{step.version:04} {step.name:<24} {done} {step.detail}".rstrip())
    if not report.applied and not report.pending:
        click.echo("the schema is up to date")
    return 0
