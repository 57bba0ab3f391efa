"""Rows as people and programs read them: a table, ``{"rows": […]}``, or CSV."""

from __future__ import annotations

import csv
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

import click
import orjson

from callmeter.errors import UsageError
from callmeter.money import format_usd, to_pico

#: Values are None (unknown), text, numbers, or money as text.
Row = Mapping[str, Any]


def usd(amount: Decimal | None) -> str | None:
    """Money as plain text, exact; None stays None."""
    return None if amount is None else format_usd(to_pico(amount))


def iso(moment: datetime | None) -> str | None:
    """ISO 8601 in UTC with a ``Z``."""
    return None if moment is None else moment.isoformat().replace("+00:00", "Z")


def check_formats(*, as_json: bool, as_csv: bool) -> None:
    """``UsageError`` if both are wanted."""
    if as_json and as_csv:
        raise UsageError("give --json or --csv, not both")


def print_rows(
    rows: Sequence[Row],
    names: Sequence[str],
    *,
    as_json: bool = False,
    as_csv: bool = False,
    empty: str,
    more: Mapping[str, Any] | None = None,
) -> None:
    """Print rows the way it was asked for.

    ``names`` are the columns of table and CSV; ``more`` stands beside ``rows`` in JSON; ``empty``
    is what people read instead of a table without rows. Unknown is null, empty, or ``–``.
    """
    check_formats(as_json=as_json, as_csv=as_csv)
    if as_json:
        click.echo(orjson.dumps({"rows": list(rows), **(more or {})}, default=str))
    elif as_csv:
        print_csv(rows, names)
    elif rows:
        print_table(rows, names)
    else:
        click.echo(empty)


def print_csv(rows: Sequence[Row], names: Sequence[str]) -> None:
    """A header and a line a row; what a spreadsheet would take for a formula gets an apostrophe."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(names)
    for row in rows:
        writer.writerow([csv_field(row.get(name)) for name in names])


def print_table(rows: Sequence[Row], names: Sequence[str]) -> None:
    """A rich table; columns in which nothing is known are left out, numbers stand right."""
    from callmeter.cli.console import console

    console().print(table(rows, names))


def table(rows: Sequence[Row], names: Sequence[str]) -> Any:
    """The table that ``print_table`` prints."""
    from rich.table import Table
    from rich.text import Text

    shown = [name for name in names if any(row.get(name) not in (None, "") for row in rows)]
    made = Table(box=None, header_style="bold", pad_edge=False)
    for name in shown:
        number = name.endswith("usd") or any(isinstance(row.get(name), int | float) for row in rows)
        made.add_column(
            name.replace("_", " "), justify="right" if number else "left", overflow="fold"
        )
    for row in rows:
        made.add_row(*(Text(_cell(row.get(name))) for name in shown))
    return made


def _cell(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.2f}"
    return str(value)


def csv_field(value: object) -> object:
    """A value as it may stand in CSV: unknown is empty, and nothing is taken for a formula."""
    if value is None:
        return ""
    if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")):
        # Negative money is a number, not a formula.
        return value if value[1:].replace(".", "", 1).isdigit() else f"'{value}"
    return value
