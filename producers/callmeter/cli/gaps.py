"""``callmeter gaps``: what is proven to be missing, dropped or refused."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

import click
import orjson

from callmeter.cli import options, tables, target
from callmeter.errors import EXIT_INCOMPLETE, EXIT_OK

_COLUMNS = (
    "what", "reason", "source", "project", "service", "first", "last", "envelopes", "events",
    "recorded_at", "closed_at",
)  # fmt: skip


@click.command(name="gaps")
@options.period
@options.project
@options.directory
@options.store
@options.formats
@options.verbosity
def command(
    since: datetime | None,
    until: datetime | None,
    project: str | None,
    directory: Path | None,
    store_url: str | None,
    as_json: bool,
    as_csv: bool,
    quiet: bool,
) -> int:
    r"""List envelopes that never arrived, events that producers dropped, and dead letters.

    `gap` is a range of sequence numbers of one source; `dropped` is what a producer's own counters
    say it let go before sending, by reason, as last heard; `dead letter` is what arrived and was
    refused, by reason: kept, not lost. `recorded at` is when the meter raised an alert of a gap; a
    `closed gap` was told of and has been filled since. --since and --until limit sources to those
    heard from in between, and dead letters. Exit code 2 if anything was lost.

    \b
    Example: callmeter gaps --since 1d
    """
    tables.check_formats(as_json=as_json, as_csv=as_csv)
    from callmeter_sinks.queries import Queries, details

    with target.reading(directory, store_url) as store:
        ask = Queries(store)
        gaps: list[dict[str, Any]] = [
            asdict(gap)
            | {"recorded_at": tables.iso(gap.recorded_at), "closed_at": tables.iso(gap.closed_at)}
            for gap in ask.gaps(project=project, since=since, until=until, closed=True)
        ]
        dropped: list[dict[str, Any]] = [
            {"source": row.source, "project": row.project, "service": row.service,
             "reason": reason, "events": number}
            for row in ask.sources(project=project, since=since)
            for reason, number in sorted(row.dropped.items())
            if number
        ]  # fmt: skip
        refused: list[dict[str, Any]] = [
            {"reason": row.reason, "events": row.dead_letters - row.envelopes,
             "envelopes": row.envelopes, "last_at": tables.iso(row.last_at)}
            for row in details.dead_letter_reasons(
                store, since=since, until=until, project=project
            )
        ]  # fmt: skip
    closed = [gap for gap in gaps if gap["closed_at"]]
    gaps = [gap for gap in gaps if not gap["closed_at"]]
    if as_json:
        click.echo(
            orjson.dumps(
                {"gaps": gaps, "closed": closed, "dropped": dropped, "dead_letters": refused}
            )
        )
    else:
        rows = [
            *({"what": "gap", **row} for row in gaps),
            *({"what": "closed gap", **row} for row in closed),
            *({"what": "dropped", **row} for row in dropped),
            *({"what": "dead letter", **row} for row in refused),
        ]
        tables.print_rows(
            rows, _COLUMNS, as_csv=as_csv, empty="nothing is missing, dropped or refused"
        )
    lost = [gap for gap in gaps if not gap["removed"]] or dropped
    return EXIT_INCOMPLETE if lost else EXIT_OK
