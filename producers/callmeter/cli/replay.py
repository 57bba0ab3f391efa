"""``callmeter replay``: a recorded file goes through the pipeline, counted once however often."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from callmeter.cli import options
from callmeter.clock import SystemClock
from callmeter.errors import UnreachableError, UsageError
from callmeter.replay.plan import Plan, paced, plan_recorded, plan_trace
from callmeter.replay.sending import Sent, send_all
from callmeter.transports.factory import open_transport
from callmeter.transports.options import TransportOptions
from callmeter.transports.protocol import Sealed

if TYPE_CHECKING:
    from callmeter_sinks.clickhouse.store import Store
    from callmeter_sinks.progress import Arrived

#: How long the store may take without any sign of progress before the wait is given up.
STALL_S = 120.0
_POLL_S = 0.2


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a replay did. ``stored`` is None where the store was out of sight (--url, --kafka)."""

    sent: Sent
    stored: Mapping[str, Arrived] | None
    already_there: bool = False


def run_replay(
    plan: Plan,
    url: str,
    store: Store | None,
    *,
    speed: float | None = None,
    api_key: str | None = None,
    show_progress: bool = True,
    healthy: Callable[[], None] = lambda: None,
) -> Outcome:
    """Send a plan's envelopes to ``url`` and, if the store is in sight, wait until it has them.

    ``healthy`` is called while waiting and raises what made the pipeline fail.
    """
    skip_below = 0
    if store is not None and plan.source is not None:
        from callmeter_sinks.progress import arrived

        before = arrived(store, [plan.source])
        state = before[plan.source]
        if state.whole and state.envelopes == plan.envelope_count:
            return Outcome(Sent(), before, already_there=True)
        skip_below = state.next_missing
    expected: dict[str, set[int]] = {}

    def tracked() -> Iterator[Sealed]:
        envelopes: Iterable[Sealed] = plan.envelopes()
        for envelope in paced(envelopes, speed) if speed else envelopes:
            expected.setdefault(envelope.source, set()).add(envelope.seq)
            if envelope.seq >= skip_below or envelope.source != plan.source:
                yield envelope

    transport = open_transport(url, settings=TransportOptions(api_key=api_key))
    with _progress(show_progress) as progress:
        bar = progress.add_task("sent", total=plan.events)

        def delivered(envelope: Sealed) -> None:
            progress.advance(bar, envelope.n)
            healthy()

        sent = send_all(transport, tracked(), clock=SystemClock(), on_delivered=delivered)
        progress.update(bar, completed=plan.events)
        if store is None:
            return Outcome(sent, None)
        for report in sent.refused:
            expected[report.envelope.source].discard(report.envelope.seq)
        bar = progress.add_task("stored", total=plan.events)
        stored = _wait_stored(
            store, expected, lambda events: progress.update(bar, completed=events), healthy
        )
        progress.update(bar, completed=plan.events)
    return Outcome(sent, stored)


def _wait_stored(
    store: Store,
    expected: Mapping[str, set[int]],
    on_events: Callable[[int], None],
    healthy: Callable[[], None],
) -> Mapping[str, Arrived]:
    from callmeter_sinks.progress import arrived

    seen = -1
    moved_s = time.monotonic()
    while True:
        healthy()
        found = arrived(store, expected)
        on_events(sum(state.events for state in found.values()))
        if all(found[source].envelopes >= len(seqs) for source, seqs in expected.items()):
            return found
        count = sum(state.envelopes for state in found.values())
        if count != seen:
            seen, moved_s = count, time.monotonic()
        if time.monotonic() - moved_s > STALL_S:
            raise UnreachableError(
                f"everything was sent, but the store has had no new envelope for {STALL_S:.0f} s: "
                "are a worker and a sink running?"
            )
        time.sleep(_POLL_S)


@contextmanager
def _progress(shown: bool) -> Iterator[Progress]:
    """A progress bar on stderr; on something that is no terminal it prints its end state once."""
    with Progress(
        TextColumn("{task.description:>7}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("events"),
        TimeElapsedColumn(),
        console=Console(file=sys.stderr),
        disable=not shown,
    ) as progress:
        yield progress


@contextmanager
def destination(
    directory: Path | None, url: str | None, kafka_url: str | None
) -> Iterator[tuple[str, Store | None, Callable[[], None]]]:
    """Where a replay goes: (transport URL, store if in sight, health check).

    A directory is served by the ``callmeter up`` that owns it, or by a pipeline in this process.
    """
    if sum(x is not None for x in (directory, url, kafka_url)) > 1:
        raise UsageError("give one of --dir, --url and --kafka")
    if url is not None or kafka_url is not None:
        yield url or kafka_url or "", None, lambda: None
        return
    from callmeter.embedded import Embedded, running
    from callmeter_sinks.clickhouse.opening import open_store

    home = directory or Path(options.DEFAULT_DIR)
    owner = running(home)
    if owner is not None:
        store = open_store(owner.store_url)
        try:
            yield owner.url, store, lambda: None
        finally:
            store.close()
        return
    with Embedded(home) as embedded:
        yield embedded.url, embedded.store, embedded.check


@click.command(name="replay")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--format", "form", type=click.Choice(["azure-llm", "envelopes"]), default=None,
    help="What the file is; by default .jsonl is envelopes and .csv an Azure LLM trace.",
)  # fmt: skip
@click.option("--provider", default="", help="Provider of a trace's calls, for pricing.")
@click.option("--model", default="", help="Model of a trace's calls; without it they are unpriced.")
@click.option("--project", default="default", show_default=True, help="Project of a trace's calls.")
@click.option("--environment", default="", help="Environment of a trace's calls.")
@click.option("--service", default="", help="Service of a trace's calls.")
@click.option(
    "--speed", type=click.FloatRange(min=0, min_open=True), default=None,
    help="Keep the recorded pace, X times as fast; by default as fast as it goes.",
)  # fmt: skip
@click.option("--again", is_flag=True, help="Count the trace anew, as another source.")
@options.directory
@click.option("--url", default=None, metavar="URL", help="A collector: http://host:4248.")
@options.kafka
@options.verbosity
def command(
    file: Path,
    form: str | None,
    provider: str,
    model: str,
    project: str,
    environment: str,
    service: str,
    speed: float | None,
    again: bool,
    directory: Path | None,
    url: str | None,
    kafka_url: str | None,
    quiet: bool,
) -> int:
    r"""Send a recorded FILE through the pipeline.

    The same file with the same options is the same source: sent again it counts nothing twice, and
    a replay that was interrupted goes on. With --dir (the default) the pipeline runs in this
    process, or in the `callmeter up` that has the directory, and the command returns when all is
    stored; with --url and --kafka, when the log has everything.

    \b
    Example: callmeter replay trace.csv --provider openai --model gpt-4o-mini
    """
    form = form or ("envelopes" if file.suffix == ".jsonl" else "azure-llm")
    if form == "azure-llm":
        origin = {"project": project, "environment": environment, "service": service}
        plan = plan_trace(
            file, provider=provider, model=model, origin=origin, again=again, clock=SystemClock()
        )
    else:
        if again:
            raise UsageError("--again is for traces: envelopes carry their own identity")
        plan = plan_recorded(file)
    with destination(directory, url, kafka_url) as (to, store, healthy):
        outcome = run_replay(plan, to, store, speed=speed, show_progress=not quiet, healthy=healthy)
    if not quiet:
        click.echo(summary(file, plan, outcome))
    return 2 if outcome.sent.refused else 0


def summary(file: Path, plan: Plan, outcome: Outcome) -> str:
    """One line for people."""
    if outcome.already_there:
        return f"{file.name}: already there, all {plan.events:,} events; nothing was sent"
    parts = [f"{file.name}: {outcome.sent.events:,} events sent"]
    if outcome.stored is not None:
        parts.append(f"{sum(state.events for state in outcome.stored.values()):,} stored")
    if outcome.sent.refused:
        first = outcome.sent.refused[0]
        parts.append(f"{len(outcome.sent.refused)} envelopes refused ({first.error})")
    return ", ".join(parts)
