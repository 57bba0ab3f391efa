"""``callmeter report``: what was called and what it cost."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import click

from callmeter.cli import options, target
from callmeter.errors import UsageError


@click.command(name="report")
@click.option(
    "--by", default="model", show_default=True, metavar="DIM[,DIM…]",
    help="Group by these: project environment service provider model operation phase status "
    "minute hour day user session program name error_type tag:KEY ….",
)  # fmt: skip
@options.period
@options.output
@click.option("--top", type=click.IntRange(1), default=None, help="Only the N costliest groups.")
@click.option("--order", default=None, metavar="[-]NAME", help="Order by a measure or dimension.")
@click.option(
    "--where", multiple=True, metavar="DIM=VALUE", help="Only where this holds. Repeatable."
)
@options.project
@options.directory
@options.store
@options.formats
@options.verbosity
def command(
    by: str,
    since: datetime | None,
    until: datetime | None,
    file_format: str | None,
    output: Path | None,
    top: int | None,
    order: str | None,
    where: tuple[str, ...],
    project: str | None,
    directory: Path | None,
    store_url: str | None,
    as_json: bool,
    as_csv: bool,
    quiet: bool,
) -> None:
    r"""Print calls, tokens, cost and latency by any dimensions.

    Unknown stays unknown: an empty field is not 0, and calls without a known price are counted
    under `unpriced`, not summed. With --output the rows go into a file that ClickHouse writes.

    \b
    Examples: callmeter report --by hour,model --since 1d
              callmeter report --by user --where model=gpt-4o-mini --top 10 --json
              callmeter report --by day,model --output days.parquet
    """
    if as_json and as_csv:
        raise UsageError("give --json or --csv, not both")
    chosen = options.output_format(output, file_format)
    if chosen and (as_json or as_csv):
        raise UsageError("--json and --csv print: with --output give --format")
    from callmeter_sinks import report as render
    from callmeter_sinks.queries import Queries

    dims = [name.strip() for name in by.split(",") if name.strip()]
    with target.reading(directory, store_url) as store:
        ask = Queries(store)
        if output is not None and chosen is not None:
            ask.export_report(
                output, chosen, dims, since=since, until=until, project=project,
                filters=options.filters(where), top=top, order=order,
            )  # fmt: skip
            return
        answer = ask.report(
            dims,
            since=since,
            until=until,
            project=project,
            filters=options.filters(where),
            top=top,
            order=order,
        )
    if as_json:
        click.echo(render.as_json(answer))
    elif as_csv:
        click.echo(render.as_csv(answer), nl=False)
    else:
        from callmeter.cli.console import console

        console().print(render.as_table(answer))
