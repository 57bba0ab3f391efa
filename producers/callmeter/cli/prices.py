"""``callmeter prices``: see, check and publish the price book that meters work from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import TypedDict

import click
import orjson

from callmeter.cli import options, tables, target
from callmeter.cli.booklog import publish, published
from callmeter.money import format_usd
from callmeter.pricing import PriceBook, build_book, check_book, diff_books, load_own_prices
from callmeter.pricing.book import Rate


class PriceRow(TypedDict):
    """One dated price of ``prices list``; ``prices`` in USD per million units."""

    provider: str
    model: str
    from_day: str | None
    source: str
    prices: dict[str, str]


_OWN = click.option(
    "--prices", "own_file", type=click.Path(path_type=Path, dir_okay=False), default=None,
    help="Your own price file (TOML), laid over genai-prices.",
)  # fmt: skip


@click.group(name="prices")
def command() -> None:
    r"""Price books: dated prices as data, published on the log for every meter.

    \b
    callmeter prices list --model gpt-4o-mini
    callmeter prices check --prices own.toml
    callmeter prices update --prices own.toml
    callmeter prices unpriced --since 7d
    """


def _built(own_file: Path | None) -> PriceBook:
    return build_book(load_own_prices(own_file) if own_file else None)


@command.command(name="list")
@_OWN
@click.option("--provider", default=None, help="Only this provider.")
@click.option("--model", default=None, help="Only models whose name contains this text.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@options.verbosity
def list_prices(
    own_file: Path | None, provider: str | None, model: str | None, as_json: bool, quiet: bool
) -> None:
    """List prices per million tokens, in USD."""
    rows = [
        row
        for row in _rows(_built(own_file))
        if (provider is None or row["provider"] == provider)
        and (model is None or model in row["model"])
    ]
    if as_json:
        click.echo(orjson.dumps({"rows": rows}))
        return
    for row in rows:
        prices = ", ".join(f"{unit} {usd}" for unit, usd in row["prices"].items())
        click.echo(
            f"{row['provider']:<16} {row['model']:<44} {row['from_day'] or 'always':<11} {prices}"
        )


def _rows(book: PriceBook) -> Iterator[PriceRow]:
    for entry in book.entries:
        for period in entry.periods:
            start = period.valid.from_us
            yield PriceRow(
                provider=entry.provider,
                model=entry.model,
                from_day=None if start is None else _day(start),
                source=entry.source,
                prices={unit: _per_million(rate) for unit, rate in period.rates.items()},
            )


def _day(at_us: int) -> str:
    return datetime.fromtimestamp(at_us // 1_000_000, UTC).strftime("%Y-%m-%d")


def _per_million(rate: Rate) -> str:
    """USD per million units; a tier as ``>128000: 2.5``."""
    parts = [format_usd(round(rate.price * 1_000_000))]
    parts += [f">{tier.above}: {format_usd(round(tier.price * 1_000_000))}" for tier in rate.tiers]
    return "; ".join(parts)


@command.command(name="check")
@_OWN
@options.verbosity
def check(own_file: Path | None, quiet: bool) -> int:
    """Check a price file and the book made with it; exit 1 if something is doubtful."""
    book = _built(own_file)
    remarks = check_book(book)
    for remark in remarks:
        click.echo(remark)
    if not quiet:
        click.echo(f"book {book.version}: {len(book.entries):,} entries, {len(remarks)} remarks")
    return 1 if remarks else 0


@command.command(name="update")
@_OWN
@options.directory
@options.kafka
@click.option("--dry-run", is_flag=True, help="Show the changes and publish nothing.")
@options.verbosity
def update(
    own_file: Path | None, directory: Path | None, kafka_url: str | None, dry_run: bool, quiet: bool
) -> None:
    """Publish the book of the installed genai-prices and your own file, if it differs.

    Running meters price by it within seconds; what was priced stays as it was (see `reprice`).
    """
    book = _built(own_file)
    old = published(directory, kafka_url)
    changes = diff_books(old, book) if old else []
    if not quiet:
        for change in changes:
            click.echo(str(change))
    if old is not None and old.version.partition("+")[2] == book.version.partition("+")[2]:
        click.echo(f"book {old.version} is already published")
        return
    if dry_run:
        click.echo(f"would publish {book.version}, {len(changes)} changes")
        return
    publish(book, directory, kafka_url)
    click.echo(f"published {book.version}, {len(changes)} changes")


@command.command(name="unpriced")
@options.period
@options.project
@options.directory
@options.store
@options.formats
@options.verbosity
def unpriced(
    since: datetime | None,
    until: datetime | None,
    project: str | None,
    directory: Path | None,
    store_url: str | None,
    as_json: bool,
    as_csv: bool,
    quiet: bool,
) -> None:
    r"""List the providers and models whose calls have no known price, most calls first.

    Give them a price in your own file, `prices update` for what comes and `reprice` for what is
    stored. `repriced` counts calls that a correction has given a cost since.

    \b
    Example: callmeter prices unpriced --since 7d --csv
    """
    from callmeter_sinks.queries import repricing

    with target.reading(directory, store_url) as store:
        found = repricing.unpriced(store, since=since, until=until, project=project)
    rows = [
        asdict(row) | {"first_at": tables.iso(row.first_at), "last_at": tables.iso(row.last_at)}
        for row in found
    ]
    names = [each.name for each in fields(repricing.UnpricedRow)]
    tables.print_rows(rows, names, as_json=as_json, as_csv=as_csv, empty="every call has a price")
