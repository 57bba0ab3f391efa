"""``callmeter forget``: a user's texts and id out of the stored rows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click
import orjson

from callmeter.cli import options, target
from callmeter.embedded import STORE_DIRECTORY
from callmeter.errors import UsageError
from callmeter.log.dirlock import DirectoryLock

if TYPE_CHECKING:
    from callmeter_sinks.clickhouse.shards import Shards
    from callmeter_sinks.clickhouse.store import Store
    from callmeter_sinks.forget import Forgotten


@click.command(name="forget")
@click.option("--user", required=True, help="The id, as producers gave it.")
@click.option("--reference", default="", help="A ticket or date for the audit entry; no names.")
@click.option("--dry-run", is_flag=True, help="Count what would be emptied, and change nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@options.directory
@options.store
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@options.verbosity
def command(
    user: str,
    reference: str,
    dry_run: bool,
    yes: bool,
    directory: Path | None,
    store_url: str | None,
    as_json: bool,
    quiet: bool,
) -> None:
    r"""Remove a user's texts and id from what is stored; counts, tokens and money stay.

    Theirs are calls whose user it is, or with a tag or attribute of that value: inputs, outputs,
    error messages, notes on them, and the id itself. One audit entry says that it was done, without
    the id. An embedded directory must be at rest; a server may be written to meanwhile. The log,
    spools, backups and exports are not reached: the command says so.

    \b
    Example: callmeter forget --user alice@example.com --reference GDPR-17
    """
    from callmeter_sinks.forget import OUT_OF_REACH, find, forget

    with _store(directory, store_url) as (store, shards):
        found = find(store, user)
        if not as_json:
            _show(found)
        if not dry_run and found.total:
            if not yes and not click.confirm("Empty these rows? It cannot be undone"):
                raise UsageError("nothing was changed; --yes does not ask")
            found = forget(store, user, reference=reference, shards=shards)
    if as_json:
        said = {"rows": found.rows, "audit_entries": found.audit_entries, "dry_run": dry_run}
        click.echo(orjson.dumps({**said, "out_of_reach": OUT_OF_REACH}))
        return
    if not dry_run and found.total and not quiet:
        click.echo(f"{found.total:,} rows were emptied; the audit says so")
    click.echo("not reached:")
    for sentence in OUT_OF_REACH:
        click.echo(f"- {sentence}")


@contextmanager
def _store(directory: Path | None, store_url: str | None) -> Iterator[tuple[Store, Shards]]:
    """A store that may be written to: what is read, and its shards, which may be one."""
    from callmeter_sinks.clickhouse.opening import open_shards, open_store
    from callmeter_sinks.clickhouse.shards import Shards

    if directory is not None and store_url is not None:
        raise UsageError("give --dir or --store, not both")
    with ExitStack() as stack:
        if store_url is not None:
            shards = open_shards(store_url)
            stack.callback(shards.close)
            store = shards.stores[0]
            if len(shards) > 1:
                store = open_store(store_url)
                stack.callback(store.close)
            yield store, shards
            return
        home = directory or Path(options.DEFAULT_DIR)
        target.require_data(home)
        stack.enter_context(DirectoryLock(home))
        store = open_store(f"chdb:{home / STORE_DIRECTORY}")
        stack.callback(store.close)
        yield store, Shards([store])


def _show(found: Forgotten) -> None:
    for table, rows in found.rows.items():
        if rows:
            click.echo(f"{table}: {rows:,} rows")
    if not found.total:
        click.echo("no row of this user")
    if found.audit_entries:
        click.echo(f"audit: {found.audit_entries:,} entries, which are kept")
