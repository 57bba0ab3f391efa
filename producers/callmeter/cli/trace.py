"""``callmeter trace``: the tree of one trace, with bars that show when each part ran."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import click

from callmeter.cli import options, tables, target
from callmeter.errors import EXIT_NO, EXIT_OK, UsageError

if TYPE_CHECKING:
    from callmeter_sinks.queries import Span
    from callmeter_sinks.queries.calls import CallRow

_COLUMNS = (
    "depth", "operation", "name", "model", "status", "error_type", "started_at", "duration_ms",
    "input_tokens", "output_tokens", "cost_usd", "call_id", "span_id", "parent_span_id",
)  # fmt: skip
_BAR = 32
_HEX = re.compile(r"[0-9a-f]{32}\Z")


@click.command(name="trace")
@click.argument("id_", metavar="ID")
@options.project
@options.directory
@options.store
@options.formats
@options.verbosity
def command(
    id_: str,
    project: str | None,
    directory: Path | None,
    store_url: str | None,
    as_json: bool,
    as_csv: bool,
    quiet: bool,
) -> int:
    r"""Show the tree of the trace ID, given as 32 hex digits, or as the id of one of its calls.

    Costs include corrections. What has begun and not ended is `open`, its bar runs until now.
    Exit code 1 if nothing of it is stored.

    \b
    Example: callmeter trace 019a0000-0000-7000-8000-000000000001
    """
    tables.check_formats(as_json=as_json, as_csv=as_csv)
    from callmeter_sinks.queries import Queries, details

    wanted = id_.lower().replace("-", "")
    if not _HEX.match(wanted):
        raise UsageError("an id is 32 hexadecimal digits (a trace) or a UUID (a call)")
    with target.reading(directory, store_url) as store:
        ask = Queries(store)
        trace = ask.trace(wanted, project=project)
        if not trace.calls:
            of_call = details.trace_of_call(store, str(UUID(wanted)), project=project)
            trace = ask.trace(of_call, project=project) if of_call else trace
        spans = [found for root in trace.roots for found in _flat(root, 0)]
        more = details.corrections_of(store, [span.call_id for _, span in spans])
    if not spans:
        sys.stderr.write(f"callmeter: no trace and no call {id_}\n")
        return EXIT_NO
    rows = [_row(depth, call, more) for depth, call in spans]
    known = [row["cost"] for row in rows if row["cost"] is not None]
    total = sum(known, Decimal(0)) if known else None
    for row in rows:
        row["cost_usd"] = tables.usd(row.pop("cost"))
    about = {"trace_id": trace.trace_id, "operations": trace.calls, "cost_usd": tables.usd(total)}
    if as_json or as_csv:
        tables.print_rows(rows, _COLUMNS, as_json=as_json, as_csv=as_csv, empty="", more=about)
        return EXIT_OK
    _print_tree(spans, rows)
    if not quiet:
        money = "unknown" if total is None else f"{about['cost_usd']} USD"
        click.echo(f"trace {trace.trace_id}: {trace.calls} operations, cost {money}")
    return EXIT_OK


def _flat(span: Span, depth: int) -> Iterator[tuple[int, CallRow]]:
    """Depth first, children by start time; without recursion, for producers nest as they like."""
    waiting = [(depth, span)]
    while waiting:
        level, each = waiting.pop()
        yield level, each.call
        waiting += [(level + 1, child) for child in reversed(each.children)]


def _row(depth: int, call: CallRow, more: dict[str, Decimal]) -> dict[str, Any]:
    cost = call.cost_usd
    if call.call_id in more:
        cost = (cost or Decimal(0)) + more[call.call_id]
    return {
        "depth": depth,
        "operation": call.operation,
        "name": call.name,
        "model": call.model,
        "status": call.status,
        "error_type": call.error_type,
        "started_at": tables.iso(call.started_at),
        "duration_ms": None if call.latency_us is None else call.latency_us / 1000,
        "input_tokens": call.input_tokens,
        "output_tokens": call.output_tokens,
        "cost": cost,
        "call_id": call.call_id,
        "span_id": call.span_id,
        "parent_span_id": call.parent_span_id,
    }


def _print_tree(spans: list[tuple[int, CallRow]], rows: list[dict[str, Any]]) -> None:
    begin = min(call.started_at for _, call in spans)
    end = max(_end(call) for _, call in spans)
    shown = [
        {
            "operation": "  " * depth + (call.name or call.operation),
            "model": call.model,
            "status": call.error_type or call.status,
            "tokens": None if call.input_tokens is None
            else f"{call.input_tokens:,} → {call.output_tokens or 0:,}",
            "cost_usd": row["cost_usd"],
            "ms": row["duration_ms"],
            "when": bar(begin, end, call.started_at, _end(call)),
        }
        for (depth, call), row in zip(spans, rows, strict=True)
    ]  # fmt: skip
    tables.print_table(shown, ("operation", "model", "status", "tokens", "cost_usd", "ms", "when"))


def _end(call: CallRow) -> datetime:
    if call.status == "open":
        return max(datetime.now(UTC), call.started_at)
    return call.started_at + timedelta(microseconds=call.latency_us or 0)


def bar(begin: datetime, end: datetime, first: datetime, last: datetime) -> str:
    """``first``..``last`` as a bar within ``begin``..``end``; never empty."""
    whole = (end - begin) / timedelta(microseconds=1) or 1.0
    left = int((first - begin) / timedelta(microseconds=1) / whole * (_BAR - 1))
    right = int((last - begin) / timedelta(microseconds=1) / whole * (_BAR - 1))
    return "·" * left + "█" * (right - left + 1) + "·" * (_BAR - 1 - right)
