"""``callmeter top``: what is being called right now, and what an hour of it costs."""

from __future__ import annotations

import re
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from callmeter.cli import options, tables, target
from callmeter.errors import UsageError

if TYPE_CHECKING:
    from callmeter_sinks.clickhouse.store import Store
    from callmeter_sinks.queries import Queries, Report

_MEASURES = (
    "calls", "calls_per_s", "in_flight", "failures", "input_tokens", "output_tokens", "cost_usd",
    "cost_per_h_usd", "latency_p95_ms",
)  # fmt: skip
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)\Z")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_HOUR_S = 3600
_ROWS = 30


class Span(click.ParamType):
    """A duration: ``500ms``, ``2s``, ``5m``, ``1h``; as seconds."""

    name = "duration"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        if isinstance(value, float):
            return value
        found = _DURATION.match(value)
        seconds = float(found[1]) * _SECONDS[found[2]] if found else 0.0
        if not seconds:
            self.fail(f"{value!r} is no duration: give 500ms, 2s, 5m or 1h", param, ctx)
        return seconds


@dataclass(frozen=True, slots=True)
class Asked:
    """What is shown."""

    dims: list[str]
    project: str | None
    window_s: float
    limit: int


@click.command(name="top")
@click.option(
    "--by", default="model", show_default=True, metavar="DIM[,DIM…]", help="As in `report`."
)
@click.option("--window", default="5m", show_default=True, type=Span(), help="The last minutes.")
@click.option("--every", default="2s", show_default=True, type=Span(), help="How often to look.")
@click.option(
    "--limit", default=_ROWS, show_default=True, type=click.IntRange(1), help="Most groups shown."
)
@click.option("--once", is_flag=True, help="Print once and end; so do --json, --csv and a pipe.")
@options.project
@options.directory
@options.store
@options.formats
@options.verbosity
def command(
    by: str,
    window: float,
    every: float,
    limit: int,
    once: bool,
    project: str | None,
    directory: Path | None,
    store_url: str | None,
    as_json: bool,
    as_csv: bool,
    quiet: bool,
) -> None:
    r"""Show calls a second and cost an hour of the last minutes, live, until Ctrl-C.

    Figures are those of `report` over the same period, which begins at a full minute, by the time
    calls began. Rates are over the seconds from there until now. `in flight` are calls that had
    begun and not ended by the watch's last count; it knows them by project, provider and model.

    \b
    Example: callmeter top --by model,user --every 2s
             callmeter top --once --window 1h --json
    """
    tables.check_formats(as_json=as_json, as_csv=as_csv)
    dims = [name.strip() for name in by.split(",") if name.strip()]
    if not dims:
        raise UsageError("--by names at least one dimension")
    asked = Asked(dims, project, window, limit)
    with target.reading(directory, store_url) as store:
        if once or as_json or as_csv or not sys.stdout.isatty():
            rows, total = _look(store, asked)
            more = {"totals": total, "since": total.pop("since"), "until": total.pop("until")}
            if not (as_json or as_csv) and rows:
                rows = [*rows, {dims[0]: "total", **total}]
            tables.print_rows(
                rows, (*dims, *_MEASURES), as_json=as_json, as_csv=as_csv,
                empty="no calls in this time", more=more,
            )  # fmt: skip
        else:
            _live(store, asked, every)


def _live(store: Store, asked: Asked, every_s: float) -> None:
    from rich.live import Live

    from callmeter.cli.console import console

    with Live(console=console(), auto_refresh=False) as live:
        while True:
            rows, total = _look(store, asked)
            shown = [*rows, {asked.dims[0]: "total", **total}]
            live.update(tables.table(shown, (*asked.dims, *_MEASURES)), refresh=True)
            time.sleep(every_s)


def _look(store: Store, asked: Asked) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Rows and totals of now."""
    from callmeter_sinks.queries import Queries

    now = datetime.now(UTC)
    since = (now - timedelta(seconds=asked.window_s)).replace(second=0, microsecond=0)
    ask = Queries(store)
    report = ask.report(
        asked.dims, since=since, project=asked.project, top=asked.limit, order="-cost_usd"
    )
    rows, total = figures(report, since, now)
    return in_flight(ask, asked, rows, total), total


def in_flight(
    ask: Queries, asked: Asked, rows: list[dict[str, Any]], total: dict[str, Any]
) -> list[dict[str, Any]]:
    """The rows with their open calls, where those are known by the dimensions; groups that have
    nothing but open calls behind them.
    """
    from callmeter_sinks.queries.flight import DIMENSIONS

    total["in_flight"] = sum(row.open for row in ask.in_flight([], project=asked.project))
    if not set(asked.dims) <= set(DIMENSIONS):
        return rows
    found = {
        tuple(row.key[name] for name in asked.dims): row.open
        for row in ask.in_flight(asked.dims, project=asked.project)
    }
    shown = [
        row | {"in_flight": found.pop(tuple(row[name] for name in asked.dims), 0)} for row in rows
    ]
    more = [
        dict(zip(asked.dims, key, strict=True)) | {"calls": 0, "in_flight": number}
        for key, number in found.items()
    ]
    return (shown + more)[: asked.limit]


def figures(
    report: Report, since: datetime, now: datetime
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """A report with rates over the seconds from ``since`` until ``now``; its rows and totals."""
    seconds = (now - since).total_seconds()

    def measures(of: Any) -> dict[str, Any]:
        hourly = None
        if of.cost_usd is not None:
            hourly = round(of.cost_usd * _HOUR_S / Decimal(str(seconds)), 6)
        return {
            "calls": of.calls,
            "calls_per_s": round(of.calls / seconds, 3),
            "failures": of.failures,
            "input_tokens": of.input_tokens,
            "output_tokens": of.output_tokens,
            "cost_usd": tables.usd(of.cost_usd),
            "cost_per_h_usd": tables.usd(hourly),
            "latency_p95_ms": of.latency_p95_ms,
        }

    rows = [
        {
            name: tables.iso(value) if isinstance(value, datetime) else value
            for name, value in row.key.items()
        }
        | measures(row.figures)
        for row in report.rows
    ]
    total = measures(report.totals)
    return rows, total | {"since": tables.iso(since), "until": tables.iso(now)}
