"""``callmeter experiment``: what an experiment is, what was noted, and how it goes."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import orjson

from callmeter.cli import options, tables, target
from callmeter.cli.plot import plot
from callmeter.errors import EXIT_NO, EXIT_OK, UsageError

if TYPE_CHECKING:
    from callmeter_sinks.queries import ExperimentRow, Queries, Series
    from callmeter_sinks.queries.details import LastValue

_COLUMNS = ("metric", "labels", "points", "step", "value", "at")
_NOTES = 20
_MANY = 10_000


@click.command(name="experiment")
@click.argument("name")
@click.option("--metric", default=None, help="The metric to plot; by default loss, or the first.")
@click.option(
    "--label", "labels", multiple=True, metavar="KEY[=VALUE]",
    help="Plot points with this label. Repeatable.",
)  # fmt: skip
@options.project
@options.directory
@options.store
@options.formats
@options.verbosity
def command(
    name: str,
    metric: str | None,
    labels: tuple[str, ...],
    project: str | None,
    directory: Path | None,
    store_url: str | None,
    as_json: bool,
    as_csv: bool,
    quiet: bool,
) -> int:
    r"""Show the experiment NAME: status, metadata, notes, last values, and a plot of one metric.

    --csv prints the last values; --json everything, with the points of the metric. Exit code 1 if
    there is no such experiment.

    \b
    Example: callmeter experiment lr-sweep --metric loss
    """
    tables.check_formats(as_json=as_json, as_csv=as_csv)
    from callmeter_sinks.queries import Queries, details

    with target.reading(directory, store_url) as store:
        ask = Queries(store)
        row = _find(ask, name, project)
        if row is None:
            sys.stderr.write(f"callmeter: no experiment {name!r}\n")
            return EXIT_NO
        lasts = details.last_values(store, name, project=row.project)
        notes = details.notes(store, name, project=row.project, limit=_NOTES)
        series = _series(ask, row, metric, labels, lasts)
    values: list[dict[str, Any]] = [
        {"metric": each.name, "labels": dict(each.labels), "points": each.points,
         "step": each.step, "value": each.value, "at": tables.iso(each.at)}
        for each in lasts
    ]  # fmt: skip
    said = [{"at": tables.iso(note.at), "text": note.text} for note in notes]
    if as_json:
        about = _about(row) | {"notes": said, "values": values, "series": _points(series)}
        click.echo(orjson.dumps(about))
        return EXIT_OK
    for value in values:
        value["labels"] = ", ".join(f"{key}={text}" for key, text in value["labels"].items())
    if as_csv:
        tables.print_csv(values, _COLUMNS)
        return EXIT_OK
    _print_about(row, said)
    shown = [{**value, "value": f"{value['value']:g}"} for value in values]
    tables.print_rows(shown, _COLUMNS, empty="no metrics")
    if series is not None and series.values:
        click.echo(f"\n{series.name}, {len(series.values):,} points")
        click.echo(plot(_places(series), series.values))
    return EXIT_OK


def _find(ask: Queries, name: str, project: str | None) -> ExperimentRow | None:
    found = [row for row in ask.experiments(project=project, limit=_MANY) if row.slug == name]
    if len(found) > 1:
        projects = ", ".join(row.project for row in found)
        raise UsageError(f"{name} is in several projects, name one with --project: {projects}")
    return found[0] if found else None


def _series(
    ask: Queries,
    row: ExperimentRow,
    metric: str | None,
    labels: Sequence[str],
    lasts: Sequence[LastValue],
) -> Series | None:
    names = sorted({each.name for each in lasts})
    if metric is not None and metric not in names:
        raise UsageError(
            f"{row.slug} has no metric {metric!r}; there are: {', '.join(names) or 'none'}"
        )
    if not names:
        return None
    wanted = metric or ("loss" if "loss" in names else names[0])
    return ask.series(wanted, experiment=row.slug, project=row.project, labels=labels)


def _about(row: ExperimentRow) -> dict[str, Any]:
    return {
        "project": row.project,
        "experiment": row.slug,
        "status": row.status,
        "description": row.description,
        "error_name": row.error_name,
        "error_detail": row.error_detail,
        "metadata": row.metadata,
        "first_at": tables.iso(row.first_at),
        "last_at": tables.iso(row.last_at),
    }


def _print_about(row: ExperimentRow, notes: Sequence[dict[str, Any]]) -> None:
    click.echo(f"{row.slug} ({row.project}) {row.status}".rstrip())
    for text in (row.description, f"{row.error_name}: {row.error_detail}" * bool(row.error_name)):
        if text:
            click.echo(text)
    for key, value in sorted(row.metadata.items()):
        click.echo(f"  {key}: {value if isinstance(value, str) else orjson.dumps(value).decode()}")
    for note in notes:
        click.echo(f"  {note['at'][:19].replace('T', ' ')}  {note['text']}")
    click.echo("")


def _places(series: Series) -> list[float]:
    """Steps if every point has one, else seconds since the first."""
    if all(step is not None for step in series.steps):
        return [float(step or 0) for step in series.steps]
    first = min(series.timestamps)
    return [(at - first).total_seconds() for at in series.timestamps]


def _points(series: Series | None) -> dict[str, Any] | None:
    if series is None:
        return None
    return {
        "metric": series.name,
        "steps": list(series.steps),
        "timestamps": [tables.iso(at) for at in series.timestamps],
        "values": list(series.values),
    }
