"""``callmeter demo``: the main job on a real trace, embedded or over a Kafka of its own."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from callmeter.cli import options
from callmeter.cli.console import console
from callmeter.cli.replay import Outcome, run_replay, summary
from callmeter.cli.verdict import show_verdict
from callmeter.clock import SystemClock
from callmeter.embedded import Embedded
from callmeter.errors import ConfigError
from callmeter.replay.plan import Plan, plan_trace

if TYPE_CHECKING:
    from callmeter_sinks.clickhouse.store import Store

TRACE = "AzureLLMInferenceTrace_conv.csv"
PROVIDER, MODEL = "openai", "gpt-4o-mini"


@click.command(name="demo")
@click.option("--keep", is_flag=True, help="Keep the directory and say where it is.")
@click.option(
    "--kafka", "over_kafka", is_flag=True,
    help="Over Apache Kafka (fetched by Maven, on Java 17), with two workers and a sink.",
)  # fmt: skip
@click.option(
    "--trace", type=click.Path(path_type=Path, dir_okay=False), default=None,
    help="Another trace of the same format; by default the one shipped with callmeter.",
)  # fmt: skip
@options.verbosity
def command(keep: bool, over_kafka: bool, trace: Path | None, quiet: bool) -> int:
    r"""Meter a real trace of 19,366 calls: replay it, print the report, verify the books.

    Everything runs in a temporary directory that is removed in the end. The trace is from Azure's
    public LLM inference data set (CC-BY 4.0); it is priced as gpt-4o-mini and has no latencies.
    """
    plan = plan_trace(
        trace or shipped_trace(),
        provider=PROVIDER,
        model=MODEL,
        origin={"project": "demo", "environment": "", "service": "azure-conversation"},
        again=False,
        clock=SystemClock(),
    )
    with _directory(keep) as home:
        if over_kafka:
            from callmeter.cli.demo_kafka import pipeline

            with pipeline(home, quiet=quiet) as (url, store, healthy):
                outcome = run_replay(plan, url, store, show_progress=not quiet, healthy=healthy)
                return _answer(plan, outcome, store, quiet=quiet)
        with Embedded(home) as embedded:
            outcome = run_replay(
                plan, embedded.url, embedded.store,
                show_progress=not quiet, healthy=embedded.check,
            )  # fmt: skip
            return _answer(plan, outcome, embedded.store, quiet=quiet)


def shipped_trace() -> Path:
    """The trace in the wheel, or in ``examples/data`` of a checkout."""
    package = Path(__file__).parents[1]
    for place in (package / "data", package.parents[1] / "examples" / "data"):
        if (place / TRACE).is_file():
            return place / TRACE
    raise ConfigError(f"{TRACE} is not installed: give a trace with --trace FILE")


def _answer(plan: Plan, outcome: Outcome, store: Store, *, quiet: bool) -> int:
    from callmeter_sinks import report as render
    from callmeter_sinks.queries import Queries
    from callmeter_sinks.verify import verify

    out = console()
    # First, though it is printed last: an insert fills its tables one after the other, and verify
    # waits until they agree.
    verdict = verify(store)
    if not quiet:
        out.print(summary(Path(TRACE), plan, outcome))
    out.print(render.as_table(Queries(store).report(["hour", "model"])))
    return show_verdict(verdict, out)


@contextmanager
def _directory(keep: bool) -> Iterator[Path]:
    home = Path(tempfile.mkdtemp(prefix="callmeter-demo-"))
    try:
        yield home
    finally:
        if keep:
            sys.stderr.write(f"kept {home}: callmeter report --dir {home}\n")
        else:
            shutil.rmtree(home, ignore_errors=True)
