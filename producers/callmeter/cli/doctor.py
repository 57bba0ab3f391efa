"""``callmeter doctor``: looks at every piece and says what is wrong and what to do."""

from __future__ import annotations

from pathlib import Path

import click
import orjson

from callmeter.cli import options
from callmeter.cli.doctor_finding import GUIDES, Finding, State
from callmeter.cli.doctor_local import look_at_installation
from callmeter.cli.doctor_places import Places
from callmeter.errors import EXIT_NO, EXIT_OK, UsageError


@click.command(name="doctor")
@options.directory
@options.kafka
@options.store
@click.option(
    "--url", default=None, envvar="CALLMETER_URL", metavar="URL",
    help="A collector: http://host:4248.",
)  # fmt: skip
@click.option(
    "--spool", "spool", type=click.Path(path_type=Path, file_okay=False), default=None,
    envvar="CALLMETER_SPOOL_DIR",
    help="A directory in which programs keep what they could not send yet.",
)  # fmt: skip
@click.option(
    "--serve", "serve_at", metavar="HOST:PORT", default=None,
    help="Go on until SIGTERM, looking again and again, and serve what is found to Prometheus.",
)  # fmt: skip
@click.option(
    "--every", "every_s", type=click.FloatRange(1, 3600), default=30, show_default=True,
    metavar="SECONDS", help="With --serve: how often to look.",
)  # fmt: skip
@click.option(
    "--verify-every", "verify_every_s", type=click.FloatRange(0, 7 * 86400), default=3600,
    show_default=True, metavar="SECONDS",
    help="With --serve: how often to run `verify` over the last two days; 0 for never.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@options.verbosity
def command(
    directory: Path | None,
    kafka_url: str | None,
    store_url: str | None,
    url: str | None,
    spool: Path | None,
    serve_at: str | None,
    every_s: float,
    verify_every_s: float,
    as_json: bool,
    quiet: bool,
) -> int:
    r"""Check what is installed, and how everything is that is named.

    Log, topics and their settings, lag of workers and sinks, prices, store and schema, gaps and
    dead letters, collector, spool, clocks.

    Without any name the embedded form in --dir is looked at. Each finding names the page of the
    guides that helps. Exit code 0: all does its work, though some may want a look. 1: something
    does not.

    \b
    Examples: callmeter doctor --kafka kafka://localhost:9092 --store clickhouse://localhost:8123/callmeter
              callmeter doctor --kafka … --store … --serve 127.0.0.1:9464
    """
    places = Places(directory, kafka_url, store_url, url, spool)
    if serve_at is not None:
        if as_json:
            raise UsageError("--serve and --json do not go together: ask /metrics")
        from callmeter.cli.doctor_metrics import serve

        serve(places, serve_at, every_s=every_s, verify_every_s=verify_every_s, quiet=quiet)
        return EXIT_OK
    findings = [*look_at_installation(), *places.look()]
    if as_json:
        click.echo(orjson.dumps([finding.to_json() for finding in findings]))
    else:
        for finding in findings:
            _print(finding, quiet=quiet)
    return EXIT_NO if any(each.state is State.WRONG for each in findings) else EXIT_OK


def _print(finding: Finding, *, quiet: bool) -> None:
    if quiet and finding.state in (State.OK, State.UNASKED):
        return
    mark = {State.OK: "ok", State.NOTICE: "look", State.WRONG: "WRONG", State.UNASKED: "-"}
    help_ = f"  ({GUIDES}/{finding.guide})" if finding.state in (State.NOTICE, State.WRONG) else ""
    click.echo(f"{mark[finding.state]:<6} {finding.piece:<12} {finding.detail}{help_}")
