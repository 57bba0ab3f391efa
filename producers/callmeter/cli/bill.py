"""``callmeter bill``: what a provider has billed against what was metered."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from callmeter.cli import options, tables, target
from callmeter.cli.billruns import BillRun, bill_source
from callmeter.cli.costruns import CostWriter
from callmeter.errors import DataError, UsageError
from callmeter.money import format_usd
from callmeter.replay.plan import Plan

if TYPE_CHECKING:
    from callmeter_sinks.bill import BillRow
    from callmeter_sinks.bill_forms import Bill
    from callmeter_sinks.clickhouse.store import Store

_COLUMNS = (
    "day", "provider", "project", "model", "calls", "unknown_cost", "billed_usd", "metered_usd",
    "difference_usd",
)  # fmt: skip


@click.group(name="bill")
def command() -> None:
    r"""Bills of providers: compared with metered cost, and booked.

    \b
    callmeter bill import costs.csv
    callmeter bill import costs.csv --book --project shop
    """


@command.command(name="import")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--provider", default="", help="Provider of a plain bill's lines that name none.")
@click.option("--project", default="", help="Project of lines that name none; needed to book.")
@click.option("--book", is_flag=True, help="Write the differences as `cost` events.")
@options.directory
@options.kafka
@options.store
@options.formats
@options.verbosity
def import_bill(
    file: Path,
    provider: str,
    project: str,
    book: bool,
    directory: Path | None,
    kafka_url: str | None,
    store_url: str | None,
    as_json: bool,
    as_csv: bool,
    quiet: bool,
) -> None:
    r"""Compare FILE, a bill as CSV, with metered cost by day (UTC) and model.

    FILE is OpenAI's or Anthropic's cost export, or has the columns date,model,usd and, if wanted,
    provider and project. With --book the differences become `cost` events of source `bill`, so that
    reports and budgets agree with the bill; a file that was booked is not booked again.

    \b
    Example: callmeter bill import costs.csv --project shop --book
    """
    from callmeter_sinks.bill import reconcile
    from callmeter_sinks.bill_forms import read_bill

    tables.check_formats(as_json=as_json, as_csv=as_csv)
    bill = read_bill(file, provider, project)
    if not all(key.provider for key in bill.amounts):
        raise UsageError("whose bill is it? give --provider, or a column provider")
    if book and not all(key.project for key in bill.amounts):
        raise UsageError("on which project is it to be booked? give --project, or a column project")
    if book and bill.days[1] > datetime.now(UTC).date():
        raise DataError(
            f"the bill has an amount for {bill.days[1]}, which has not begun (UTC); nothing was "
            "booked"
        )
    writes = "bookings" if book else ""
    with target.correcting(directory, kafka_url, store_url, writes=writes) as (url, store, healthy):
        rows = reconcile(store, bill)
        booked = _book(bill, rows, store, url, healthy, quiet=quiet) if book else None
    shown = [_shown(row) for row in rows]
    total = _total(rows)
    if as_json:
        more = {"totals": total, "form": bill.form, "sha256": bill.digest, "booked": booked}
        tables.print_rows(shown, _COLUMNS, as_json=True, empty="", more=more)
    elif as_csv:
        tables.print_csv(shown, _COLUMNS)
    else:
        tables.print_rows([*shown, total], _COLUMNS, empty="")
        if not quiet and booked is not None:
            click.echo(
                f"{booked} differences booked" if booked else "nothing to book, or booked before"
            )


def _book(
    bill: Bill,
    rows: list[BillRow],
    store: Store,
    url: str,
    healthy: Callable[[], None],
    *,
    quiet: bool,
) -> int:
    """Book each project's differences in a run of its own; how many amounts were written."""
    booker = _Booker(store, url, healthy, quiet=quiet)
    booked = 0
    for project in sorted({row.project for row in rows}):
        booked += booker.book(bill, project)
    if booked:
        from callmeter_sinks.bill import reconcile

        rows[:] = reconcile(store, bill)
    return booked


class _Booker:
    def __init__(self, store: Store, url: str, healthy: Callable[[], None], *, quiet: bool) -> None:
        self._store = store
        self._writer = CostWriter(store, url, healthy, "bookings", quiet=quiet)

    def book(self, bill: Bill, project: str) -> int:
        """Nothing if a run of this file is stored whole; a run that was cut short is made up for.

        The fence says that the store has whatever an earlier process left in the log; only then
        are differences computed (decision 0011).
        """
        from callmeter_sinks.bill import reconcile

        number = 0
        while True:  # attempts before this one are stored, or are when the fence is
            if self._whole(bill_source(bill.digest, project, number)):
                return 0
            run = BillRun(bill.digest, project, number)
            now_us = self._writer.fenced(run, f"bill {bill.digest[:12]} is booked")
            if now_us is not None:
                break
            if self._whole(run.source):
                return 0
            number += 1
        # One insert may hold an earlier attempt's amounts and this fence, and fills its tables one
        # after the other.
        self._writer.wait(lambda: all(self._costs_in(bill, project, n) for n in range(number)))
        rows = [row for row in reconcile(self._store, bill) if row.project == project]
        lines = run.lines([row for row in rows if row.difference_pico], now_us)
        self._writer.send(Plan(lambda: run.envelopes(lines, now_us), None, None, len(lines)))
        self._writer.wait(lambda: self._whole(run.source) and self._costs_in(bill, project, number))
        return len(lines)

    def _whole(self, source: str) -> bool:
        return self._writer.arrived(source).whole

    def _costs_in(self, bill: Bill, project: str, number: int) -> bool:
        return self._writer.costs_in(bill_source(bill.digest, project, number))


def _shown(row: BillRow) -> dict[str, object]:
    return {
        "day": row.day.isoformat(),
        "provider": row.provider,
        "project": row.project,
        "model": row.model,
        **_amounts([row]),
    }


def _total(rows: Sequence[BillRow]) -> dict[str, object]:
    return {"day": "total", **_amounts(rows)}


def _amounts(rows: Sequence[BillRow]) -> dict[str, object]:
    return {
        "calls": sum(row.calls for row in rows),
        "unknown_cost": sum(row.unknown for row in rows),
        "billed_usd": format_usd(sum(row.billed_pico for row in rows)),
        "metered_usd": format_usd(sum(row.metered_pico for row in rows)),
        "difference_usd": format_usd(sum(row.difference_pico for row in rows)),
    }
