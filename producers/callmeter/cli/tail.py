"""``callmeter tail``: calls, dead letters and alerts as they are stored."""

from __future__ import annotations

import csv
import sys
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import orjson

from callmeter.cli import options, tables, target
from callmeter.cli.top import Span

if TYPE_CHECKING:
    from callmeter_sinks.clickhouse.store import Store
    from callmeter_sinks.queries.arrivals import Arrival

_COLUMNS = (
    "at", "kind", "project", "provider", "model", "operation", "status", "error_type",
    "input_tokens", "output_tokens", "latency_ms", "cost_usd", "call_id", "trace_id", "detail",
)  # fmt: skip
_NEWEST = 20


@click.command(name="tail")
@click.option("--once", is_flag=True, help="Print the newest and end.")
@click.option(
    "--limit", type=click.IntRange(1, 10_000), default=None,
    help=f"End after so many lines; with --once, how many ({_NEWEST}).",
)  # fmt: skip
@click.option("--every", default="500ms", show_default=True, type=Span(), help="How often to look.")
@options.project
@options.directory
@options.store
@options.formats
@options.verbosity
def command(
    once: bool,
    limit: int | None,
    every: float,
    project: str | None,
    directory: Path | None,
    store_url: str | None,
    as_json: bool,
    as_csv: bool,
    quiet: bool,
) -> None:
    r"""Print finished calls, dead letters and alerts as they are stored, a line each, until Ctrl-C.

    --json prints a JSON object a line. Of a dead letter `status` is the reason, of an alert what
    kind it is. With --project come the alerts of its calls, sources and budgets.

    \b
    Example: callmeter tail --project shop
             callmeter tail --once --limit 5 --json
    """
    tables.check_formats(as_json=as_json, as_csv=as_csv)
    from callmeter_sinks.queries.arrivals import newest

    with target.reading(directory, store_url) as store:
        if once:
            found: Iterator[Arrival] = iter(newest(store, limit or _NEWEST, project=project))
        else:
            found = islice(_follow(store, project, every), limit)
        writer = csv.writer(sys.stdout, lineterminator="\n")
        if as_csv:
            writer.writerow(_COLUMNS)
        for arrival in found:
            row = _row(arrival)
            if as_json:
                click.echo(orjson.dumps(row))
            elif as_csv:
                writer.writerow([tables.csv_field(row[name]) for name in _COLUMNS])
                sys.stdout.flush()
            else:
                click.echo(_line(row))


def _follow(store: Store, project: str | None, every_s: float) -> Iterator[Arrival]:
    from callmeter_sinks.queries.arrivals import Arrivals

    arrivals = Arrivals(store, project=project)
    while True:
        yield from arrivals.new()
        time.sleep(every_s)


def _row(arrival: Arrival) -> dict[str, Any]:
    return {
        "at": tables.iso(arrival.at),
        "kind": arrival.kind,
        "project": arrival.project,
        "provider": arrival.provider,
        "model": arrival.model,
        "operation": arrival.operation,
        "status": arrival.status,
        "error_type": arrival.error_type,
        "input_tokens": arrival.input_tokens,
        "output_tokens": arrival.output_tokens,
        "latency_ms": None if arrival.latency_us is None else arrival.latency_us / 1000,
        "cost_usd": tables.usd(arrival.cost_usd),
        "call_id": arrival.call_id,
        "trace_id": arrival.trace_id,
        "detail": arrival.detail,
    }


def _line(row: dict[str, Any]) -> str:
    at = row["at"][11:23]
    if row["kind"] == "alert":
        return f"{at} alert {row['status']}: {row['detail']}"
    if row["kind"] != "call":
        return f"{at} {row['project']} dead letter: {row['status']}: {row['detail']}"
    tokens = "? tokens"
    if row["input_tokens"] is not None:
        tokens = f"{row['input_tokens']:,} → {row['output_tokens'] or 0:,} tokens"
    took = "" if row["latency_ms"] is None else f" {row['latency_ms']:,.0f} ms"
    cost = "" if row["cost_usd"] is None else f" {row['cost_usd']} USD"
    what = f"{row['operation']} {row['model']}".rstrip()
    return (
        f"{at} {row['project']} {what} {row['error_type'] or row['status']} "
        f"{tokens}{took}{cost} {row['call_id']}"
    )
