"""``callmeter migrate``: bring a store's schema, and how long it keeps what, up to date."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from callmeter.cli import options
from callmeter.errors import UsageError

if TYPE_CHECKING:
    from callmeter_sinks.clickhouse.migrate import MigrationReport

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
    Several addresses in the URL are several shards: each is migrated, then what reads them all.

    \b
    Example: callmeter migrate --store clickhouse://user:password@localhost:8123/callmeter
             callmeter migrate --store … --retention-days calls=365 --retention-days costs=forever
    """
    from callmeter_sinks.clickhouse.migrate import migrate
    from callmeter_sinks.clickhouse.migrate_shards import migrate_shards
    from callmeter_sinks.clickhouse.opening import open_shards
    from callmeter_sinks.clickhouse.retention import apply_retention

    if store_url is None:
        raise UsageError("which store? give --store URL, or set CALLMETER_STORE")
    days = _days(retention_days)
    shards = open_shards(store_url, create_database=not dry_run)
    read_side: Sequence[str] = ()
    try:
        store = shards.stores[0]
        if days and store.embedded:
            raise UsageError("--retention-days is for servers: an embedded store keeps everything")
        if len(shards) > 1:
            done = migrate_shards(shards, dry_run=dry_run, retention=days)
            reports, kept, read_side = done.shards, done.retention, done.read_side
            if not dry_run:
                _look_through(store_url)
        else:
            report = migrate(store, dry_run=dry_run)
            reports = [report]
            kept = [*report.retention, *([] if dry_run else apply_retention(store, days))]
    finally:
        shards.close()
    if quiet:
        return 0
    for shard, each in enumerate(reports, 1):
        if len(reports) > 1:
            click.echo(f"shard {shard} of {len(reports)}, {shards.stores[shard - 1].name}")
        _show(each)
    if read_side:
        click.echo("to be run for the read side:" if dry_run else "the read side, made anew:")
        for statement in read_side:
            click.echo(f"  {statement}")
    if kept:
        click.echo(f"retention set: {', '.join(dict.fromkeys(kept))}")
    return 0


def _look_through(store_url: str) -> None:
    """That the read side reaches every shard, and each once."""
    from callmeter_sinks.clickhouse.migrate import check_schema
    from callmeter_sinks.clickhouse.opening import open_store

    reading = open_store(store_url)
    try:
        check_schema(reading)
    finally:
        reading.close()


def _show(report: MigrationReport) -> None:
    for step in report.steps:
        done = "done now" if step.version in report.applied else step.state.value
        click.echo(f"{step.version:04} {step.name:<24} {done} {step.detail}".rstrip())
    if not report.applied and not report.pending:
        click.echo("the schema is up to date")


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
