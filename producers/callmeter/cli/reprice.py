"""``callmeter reprice``: what stored calls cost by another price book, as corrections."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from callmeter.cli import options, tables, target
from callmeter.cli.corrections import Change, Run, corrections, run_source
from callmeter.cli.costruns import CostWriter
from callmeter.clock import SystemClock
from callmeter.money import format_usd
from callmeter.pricing import PriceBook, Pricer, build_book, load_own_prices
from callmeter.replay.plan import Plan

if TYPE_CHECKING:
    from callmeter_sinks.clickhouse.store import Store
    from callmeter_sinks.progress import Arrived

_COLUMNS = (
    "provider", "model", "calls", "changed", "newly_priced", "unpriced",
    "before_usd", "after_usd", "difference_usd",
)  # fmt: skip
Changes = dict[tuple[str, str], Change]


@click.command(name="reprice")
@click.option(
    "--prices", "own_file", required=True, type=click.Path(path_type=Path, dir_okay=False),
    help="The price file (TOML) to price by, laid over genai-prices.",
)  # fmt: skip
@options.period
@click.option("--dry-run", is_flag=True, help="Show the difference and write nothing.")
@options.project
@options.directory
@options.kafka
@options.store
@options.formats
@options.verbosity
def command(
    own_file: Path,
    since: datetime | None,
    until: datetime | None,
    dry_run: bool,
    project: str | None,
    directory: Path | None,
    kafka_url: str | None,
    store_url: str | None,
    as_json: bool,
    as_csv: bool,
    quiet: bool,
) -> None:
    r"""Correct what stored calls cost, by another price book; nothing is changed in place.

    Every call of the period that a price book has priced, or could not price, is priced anew. What
    differs is written as a `cost` event with the call's own dimensions and time, so reports,
    budgets and rollups follow. Costs that a provider reported stay; so do calls the new book does
    not know. Run again it finds nothing to correct. New calls are priced by `prices update`.

    \b
    Example: callmeter reprice --prices own.toml --since 30d --dry-run
    """
    tables.check_formats(as_json=as_json, as_csv=as_csv)
    book = build_book(load_own_prices(own_file))
    changes: Changes = {}
    writes = "" if dry_run else "corrections"
    with target.correcting(directory, kafka_url, store_url, writes=writes) as (url, store, healthy):
        repricing = _Repricing(store, url, healthy, book, since, until, quiet)
        for name in repricing.projects(project):
            repricing.of(name, changes, dry_run=dry_run)
    rows = [_row(*key, change) for key, change in sorted(changes.items())]
    total = _row("total", "", _sum(changes))
    if as_json:
        more = {"totals": total, "price_version": book.version, "dry_run": dry_run}
        tables.print_rows(rows, _COLUMNS, as_json=True, empty="", more=more)
    elif as_csv:
        tables.print_csv(rows, _COLUMNS)
    else:
        shown = [*rows, total] if rows else []
        tables.print_rows(shown, _COLUMNS, empty="no calls in this period that a book may price")
        if not quiet and rows:
            done = "would be corrected" if dry_run else "corrected"
            click.echo(f"{total['changed']:,} calls {done} by book {book.version}")


class _Repricing:
    def __init__(
        self,
        store: Store,
        url: str,
        healthy: Callable[[], None],
        book: PriceBook,
        since: datetime | None,
        until: datetime | None,
        quiet: bool,
    ) -> None:
        self._store = store
        self._writer = CostWriter(store, url, healthy, "corrections", quiet=quiet)
        self._pricer = Pricer(book)
        self._version = book.version
        self._since = since
        self._until = until
        self._clock = SystemClock()

    def projects(self, project: str | None) -> list[str]:
        from callmeter_sinks.queries.repricing import projects

        return projects(self._store, since=self._since, until=self._until, project=project)

    def of(self, project: str, changes: Changes, *, dry_run: bool) -> None:
        """Compute a project's corrections and, unless it is a dry run, send and await them."""
        found: Changes = {}
        lines = sum(1 for _ in self._lines(project, found))
        if not dry_run and (lines or self._cut_short(project)):
            run = self._begin(project)
            # Computed anew: what an earlier run had left in the log is stored by now.
            found.clear()
            now_us = self._clock.now_us()
            self._writer.send(
                Plan(lambda: run.envelopes(self._lines(project, found), now_us), None, None, lines)
            )
            self._writer.wait(lambda: self._arrived(project, run.number).whole)
            self._writer.wait(partial(self._corrections_in, project, run.number + 1))
        for key, change in found.items():
            _add(changes.setdefault(key, Change()), change)

    def _lines(self, project: str, changes: Changes) -> Iterator[bytes]:
        from callmeter_sinks.queries.repricing import priced_calls

        calls = priced_calls(self._store, since=self._since, until=self._until, project=project)
        return corrections(calls, self._pricer, changes, self._clock.now_us())

    def _cut_short(self, project: str) -> bool:
        """Whether the newest run has not all arrived: it may still change what calls cost."""
        number = self._first_open(project)
        return self._arrived(project, number).envelopes > 0

    def _first_open(self, project: str) -> int:
        """The first run that the store has not whole: nothing of it, or a part."""
        number = 0
        while self._arrived(project, number).whole:
            number += 1
        return number

    def _arrived(self, project: str, number: int) -> Arrived:
        return self._writer.arrived(run_source(project, number))

    def _begin(self, project: str) -> Run:
        """A run whose number is free for certain, its fence stored."""
        text = f"repricing by book {self._version}, calls {_period(self._since, self._until)}"
        number = self._first_open(project)
        while True:
            run = Run(project, number)
            if self._writer.fenced(run, text) is not None:
                # One insert may hold an earlier run's corrections and this fence, and fills its
                # tables one after the other.
                self._writer.wait(partial(self._corrections_in, project, number))
                return run
            number += 1

    def _corrections_in(self, project: str, before: int) -> bool:
        """Whether every correction of earlier runs that the ledger has is in its table."""
        return all(self._writer.costs_in(run_source(project, number)) for number in range(before))


def _period(since: datetime | None, until: datetime | None) -> str:
    if since is None and until is None:
        return "of all time"
    return " ".join(
        f"{word} {tables.iso(moment)}"
        for word, moment in (("since", since), ("until", until))
        if moment is not None
    )


def _add(total: Change, change: Change) -> None:
    for name in Change.__dataclass_fields__:
        setattr(total, name, getattr(total, name) + getattr(change, name))


def _sum(changes: Changes) -> Change:
    total = Change()
    for change in changes.values():
        _add(total, change)
    return total


def _row(provider: str, model: str, change: Change) -> dict[str, object]:
    return {
        "provider": provider,
        "model": model,
        "calls": change.calls,
        "changed": change.changed,
        "newly_priced": change.newly_priced,
        "unpriced": change.unpriced,
        "before_usd": format_usd(change.before_pico),
        "after_usd": format_usd(change.after_pico),
        "difference_usd": format_usd(change.after_pico - change.before_pico),
    }
