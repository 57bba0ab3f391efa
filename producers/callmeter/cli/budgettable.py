"""Tables of budgets, for people, as JSON and as CSV."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterable, Mapping, Sequence

import click
import orjson
from msgspec import UNSET, UnsetType

from callmeter.errors import UsageError
from callmeter.money import format_usd
from callmeter.schema.budgets import Budget, describe_limit
from callmeter.schema.status import BudgetStatus

Row = Mapping[str, str | int | None]


def definition_rows(budgets: Iterable[Budget]) -> list[Row]:
    """One row for each definition."""
    return [
        {
            "budget": budget.id,
            "limit": describe_limit(budget),
            "window": budget.window,
            "per": budget.per,
            "scope": " ".join(
                f"{key}={value}" for key, values in budget.scope.items() for value in values
            ),
            "thresholds": ",".join(budget.thresholds) if budget.slo is UNSET else "",
            "action": budget.action,
            "state": budget.state,
            "version": budget.version,
            "note": budget.note,
        }
        for budget in budgets
    ]


def status_rows(
    definitions: Mapping[str, Budget], statuses: Iterable[BudgetStatus], now_us: int
) -> list[Row]:
    """One row for each entity; one of which nothing is known yet has a row of nothing spent."""
    rows = [_status_row(status, now_us) for status in statuses]
    spoken = {row["budget"] for row in rows}
    for name, budget in definitions.items():
        if name not in spoken and not budget.per:
            rows.append(_empty_row(budget))
    return rows


def _status_row(status: BudgetStatus, now_us: int) -> Row:
    ended = 0 < status.end_us <= now_us
    spent = 0 if ended else int(status.spend_pico)
    calm = status.state if status.state == "disabled" else "ok"
    return {
        "budget": status.budget,
        "entity": status.entity,
        "state": calm if ended else status.state,
        "spent_usd": format_usd(spent),
        "limit_usd": _usd(status.limit_pico),
        "tokens": 0 if ended else status.tokens,
        "limit_tokens": None if status.limit_tokens is UNSET else status.limit_tokens,
        "calls": 0 if ended else status.calls,
        "open": status.open,
        "exposure_usd": format_usd(int(status.exposure_pico)),
        "burn_usd_per_h": format_usd(int(status.burn_long_pico)),
        "window": status.window,
        "action": status.action,
        "version": status.version,
    }


def _empty_row(budget: Budget) -> Row:
    return {
        "budget": budget.id,
        "entity": "",
        "state": "disabled" if budget.state == "disabled" else "ok",
        "spent_usd": "0",
        "limit_usd": _usd(budget.limit_pico),
        "tokens": 0,
        "limit_tokens": None if budget.limit_tokens is UNSET else budget.limit_tokens,
        "calls": 0,
        "open": 0,
        "exposure_usd": "0",
        "burn_usd_per_h": "0",
        "window": budget.window,
        "action": budget.action,
        "version": budget.version,
    }


def _usd(pico: str | UnsetType) -> str | None:
    return None if pico is UNSET else format_usd(int(pico))


def print_rows(rows: Sequence[Row], *, as_json: bool, as_csv: bool) -> None:
    """Print a table the way it was asked for; unknown is null in JSON and empty elsewhere."""
    if as_json and as_csv:
        raise UsageError("give --json or --csv, not both")
    if as_json:
        click.echo(orjson.dumps({"rows": rows}))
        return
    names = list(rows[0]) if rows else []
    if as_csv:
        writer = csv.writer(sys.stdout)
        writer.writerow(names)
        writer.writerows([row[name] for name in names] for row in rows)
        return
    if not rows:
        click.echo("no budgets")
        return
    from rich.table import Table

    from callmeter.cli.console import console

    shown = [name for name in names if any(row[name] not in (None, "") for row in rows)]
    table = Table(*shown, box=None, header_style="bold")
    for row in rows:
        table.add_row(*("" if row[name] is None else str(row[name]) for name in shown))
    console().print(table)
