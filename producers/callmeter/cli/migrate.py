"""``callmeter migrate``: bring a store's schema, and how long it keeps what, up to date."""

from __future__ import annotations

import click

from callmeter.cli import options
from callmeter.errors import UsageError

_FOREVER = "forever"


@click.command(name="migrate")
@options.store
@click.option("--dry-run", is_flag=True, help="List what would be run, and run nothing.")
@click.option(
    "--retention-days", multiple=True, envvar="CALLMETER_RETENTION_DAYS", metavar="TABLE=DAYS",
    help="Keep a table's rows so many days from arrival, or `forever`. Repeatable; what is not "
    "named stays as it is. New tables of a server begin with: calls and costs 90, calls_open and "
    "in_flight 2, minutes, dead_letters and budget_status 30, ledger 60; the rest is kept.",
)  # fmt: skip
@options.verbosity
def command(
    store_url: str | None, dry_run: bool, retention_days: tuple[str, ...], quiet: bool
) -> int:
    r"""Bring the schema of a ClickHouse up to this version; running it again does nothing.

    A server's database is made if there is none. A store that a newer callmeter has migrated is
    refused; a migration that failed says at which statement, and the next run goes on from there.
    Retention counts from arrival, never by event time. An embedded store keeps everything.

    \b
    Example: callmeter migrate --store clickhouse://user:password@localhost:8123/callmeter
             callmeter migrate --store … --retention-days calls=365 --retention-days costs=forever
    """
    from callmeter_sinks.clickhouse.migrate import migrate
    from callmeter_sinks.clickhouse.retention import apply_retention
    from callmeter_sinks.clickhouse.store import open_store

    if store_url is None:
        raise UsageError("which store? give --store URL, or set CALLMETER_STORE")
    days = _days(retention_days)
    store = open_store(store_url, create_database=not dry_run)
    try:
        if days and store.embedded:
            raise UsageError("--retention-days is for servers: an embedded store keeps everything")
        report = migrate(store, dry_run=dry_run)
        kept = [*report.retention, *([] if dry_run else apply_retention(store, days))]
    finally:
        store.close()
    if quiet:
        return 0
    for step in report.steps:
        done = "done now" if step.version in report.applied else step.state.value
        click.echo(f"{step.version:04} {step.name:<24} {done} {step.detail}".rstrip())
    if not report.applied and not report.pending:
        click.echo("the schema is up to date")
    if kept:
        click.echo(f"retention set: {', '.join(dict.fromkeys(kept))}")
    return 0


def _days(given: tuple[str, ...]) -> dict[str, int | None]:
    """``TABLE=DAYS`` as a map; several may stand in one value, parted by commas."""
    found: dict[str, int | None] = {}
    for each in ",".join(given).split(","):
        if not each.strip():
            continue
        table, _, number = each.strip().partition("=")
        if number != _FOREVER and not number.isdecimal():
            raise UsageError(f"--retention-days takes TABLE=DAYS or TABLE=forever, not {each!r}")
        found[table] = None if number == _FOREVER else int(number)
    return found
