"""``callmeter run-metadata``: SyGra's metadata document of any past run, out of the store."""

from __future__ import annotations

import json
from pathlib import Path

import click

from callmeter.cli import options, target
from callmeter.errors import EXIT_INCOMPLETE, EXIT_OK, CannotWriteError, DataError


@click.command(name="run-metadata")
@click.argument("run")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, dir_okay=False), default=None,
    help="Write to this file instead of standard output.",
)  # fmt: skip
@options.project
@options.directory
@options.store
@options.verbosity
def command(
    run: str,
    output: Path | None,
    project: str | None,
    directory: Path | None,
    store_url: str | None,
    quiet: bool,
) -> int:
    r"""Print the metadata document of a run recorded by callmeter.compat.sygra.

    RUN is the run's id, or a task's name: then it is the newest run of that task. Figures are those
    of the store, so costs are the meter's, corrections included.

    Exit code 0: the run has ended. 2: it has not, or its end has not arrived; the document is of
    what is there. 65: there is no such run.

    \b
    Examples: callmeter run-metadata tasks.examples.summaries
              callmeter run-metadata 019e2b7c-… -o metadata.json
    """
    from callmeter.compat.sygra import files, wire
    from callmeter.compat.sygra.execution import local_now
    from callmeter.compat.sygra.stored import stored_document
    from callmeter_sinks import run_metadata

    with target.reading(directory, store_url) as store:
        facts = run_metadata.run_facts(store, wire.RUN_NOTE, run=run, project=project)
        run_id = facts["run"] if facts else run
        calls = run_metadata.run_calls(store, wire.RUN_TAG, run_id, project=project)
    if facts is None and not calls:
        raise DataError(f"no run {run!r} in the store: give a run's id or the name of its task")
    made = stored_document(calls, facts, local_now())
    if output is None:
        click.echo(json.dumps(made, indent=2, ensure_ascii=False))
    else:
        try:
            files.write_json(output, made)
        except OSError as exc:
            raise CannotWriteError(f"{output} cannot be written: {exc}") from exc
    if made["execution"]["timing"]["end_time"] is not None:
        return EXIT_OK
    if not quiet:
        click.echo(f"run {run_id} has not ended, or its end has not arrived", err=True)
    return EXIT_INCOMPLETE
