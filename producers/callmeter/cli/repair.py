"""``callmeter repair``: make the store, or a range of it, anew from the log."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click
import orjson
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from callmeter.cli import options, target
from callmeter.embedded import LOG_FILE, STORE_DIRECTORY
from callmeter.errors import UsageError
from callmeter.log.dirlock import DirectoryLock

if TYPE_CHECKING:
    from callmeter_sinks.clickhouse.shards import Shards
    from callmeter_sinks.clickhouse.store import Store
    from callmeter_sinks.repair import Repaired
    from callmeter_sinks.repair_plan import RepairPlan, Wanted
    from callmeter_sinks.source import MeteredSource


@click.command(name="repair")
@click.option("--partition", type=click.IntRange(0), default=None, help="Only this partition.")
@click.option("--first", type=click.IntRange(0), default=None, help="From this offset of it on.")
@click.option("--last", type=click.IntRange(0), default=None, help="To this offset, included.")
@click.option("--since", type=options.When(), default=None, help="What the log got from then on.")
@click.option("--until", type=options.When(), default=None, help="What the log got before.")
@click.option("--dry-run", is_flag=True, help="Say what would be rebuilt, and change nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@options.directory
@options.kafka
@options.store
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@options.verbosity
def command(
    partition: int | None,
    first: int | None,
    last: int | None,
    since: datetime | None,
    until: datetime | None,
    dry_run: bool,
    yes: bool,
    directory: Path | None,
    kafka_url: str | None,
    store_url: str | None,
    as_json: bool,
    quiet: bool,
) -> None:
    r"""Make the store anew from the log: everything the log has, or a range of it.

    Offsets are those that `verify` names. Whole checkpoints are rebuilt, and the rollups of the
    days they touch. Stop the sinks (or `callmeter up`) first; a repair that was cut short is simply
    started again. What the log no longer has is refused and named: nothing is changed then.

    \b
    Example: callmeter repair --dry-run
             callmeter repair --partition 3 --first 1200 --last 1300 --yes
    """
    from callmeter_sinks.repair_plan import Wanted

    wanted = Wanted.of(partition, first, last, since, until)
    with _places(directory, kafka_url, store_url) as (shards, source):
        plan = _planned(shards, source, wanted)
        if not as_json:
            _show(plan)
        if dry_run or not plan.ranges:
            if as_json:
                click.echo(orjson.dumps(_json(plan)))
            return
        if not yes and not click.confirm("Rebuild this? Sinks must not run meanwhile"):
            raise UsageError("nothing was changed; --yes does not ask")
        done = carry_out(shards, source, wanted, quiet=quiet)
    if as_json:
        click.echo(orjson.dumps({**_json(plan), "done": _done(done)}))
    elif not quiet:
        _tell(done)


@contextmanager
def _places(
    directory: Path | None, kafka_url: str | None, store_url: str | None
) -> Iterator[tuple[Shards, MeteredSource]]:
    """Store and log, with nobody else in an embedded directory."""
    from callmeter_sinks.clickhouse.opening import open_shards
    from callmeter_sinks.clickhouse.shards import Shards

    if kafka_url is not None:
        if directory is not None or store_url is None:
            raise UsageError("give --kafka and --store, or --dir")
        shards = open_shards(store_url)
        try:
            with _kafka(kafka_url) as source:
                yield shards, source
        finally:
            shards.close()
        return
    if store_url is not None:
        raise UsageError("from which log? give --kafka beside --store, or --dir")
    from callmeter.log.sqlite_log import SqliteLog
    from callmeter_sinks.clickhouse.chdb_store import ChdbStore
    from callmeter_sinks.clickhouse.migrate import migrate
    from callmeter_sinks.source import SqliteSource

    home = directory or Path(options.DEFAULT_DIR)
    target.require_data(home)
    with DirectoryLock(home), SqliteLog(home / LOG_FILE) as log:
        embedded = ChdbStore(home / STORE_DIRECTORY)
        try:
            migrate(embedded)
            yield Shards([embedded]), SqliteSource(log)
        finally:
            embedded.close()


@contextmanager
def _kafka(url: str) -> Iterator[MeteredSource]:
    from callmeter.log.kafka_admin import read_log_id
    from callmeter.log.kafka_consumer import KafkaGroupReader
    from callmeter.log.kafka_settings import KafkaSettings

    settings = KafkaSettings.from_url(url)
    log_id = asyncio.run(read_log_id(settings))
    source = KafkaGroupReader(settings, "metered", group="repair", log_id=log_id, whole=True)
    try:
        yield source
    finally:
        source.close()


def _by_shard(
    shards: Shards, source: MeteredSource, wanted: Wanted
) -> Iterator[tuple[Store, MeteredSource]]:
    """Each shard with the partitions it has, but for those of which nothing is wanted."""
    from callmeter_sinks.shard_source import ShardSource

    number = len(shards)
    if number == 1:
        yield shards.stores[0], source
        return
    partition = wanted.partition
    if partition is not None and partition not in source.assignment():
        raise UsageError(f"there is no partition {partition}: 0 to {len(source.assignment()) - 1}")
    for index, store in enumerate(shards.stores):
        if partition is None or partition % number == index:
            yield store, ShardSource(source, number, index)


def _planned(shards: Shards, source: MeteredSource, wanted: Wanted) -> RepairPlan:
    from callmeter_sinks.repair_plan import RepairPlan, plan_repair

    plans = [plan_repair(*place, wanted) for place in _by_shard(shards, source, wanted)]
    return RepairPlan(source.log_id, [each for plan in plans for each in plan.ranges])


def carry_out(shards: Shards, source: MeteredSource, wanted: Wanted, *, quiet: bool) -> Repaired:
    """Repair every shard that has something of what is wanted, one after the other."""
    from callmeter_sinks.repair import Repair, Repaired
    from callmeter_sinks.repair_plan import plan_repair

    done = Repaired()
    with _bars(not quiet) as bars:
        events = bars.add_task("events", total=None)
        days = bars.add_task("days", total=None)
        planned_events = planned_days = 0
        for store, partitions in _by_shard(shards, source, wanted):
            repair = Repair(
                store,
                partitions,
                on_events=lambda number: bars.advance(events, number),
                on_days=lambda number: bars.advance(days, number),
            )
            repair.settle()
            plan = plan_repair(store, partitions, wanted)  # with what the sink has just brought
            planned_events += plan.events
            planned_days += len(plan.days)
            bars.update(events, total=planned_events)
            bars.update(days, total=planned_days)
            if plan.ranges:
                done.add(repair.run(plan))
    return done


def _bars(shown: bool) -> Progress:
    """On stderr; on something that is no terminal it prints its end state once."""
    return Progress(
        TextColumn("{task.description:>7}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(file=sys.stderr),
        disable=not shown,
    )


def _show(plan: RepairPlan) -> None:
    for each in plan.ranges:
        click.echo(
            f"partition {each.partition}: offsets {each.first} to {each.last}, "
            f"{each.events:,} events in {each.records:,} records of the log"
        )
    if plan.days:
        click.echo(f"rollups of {len(plan.days):,} days, {plan.days[0]} to {plan.days[-1]}")
    if not plan.ranges:
        click.echo("nothing of this is in the log")


def _json(plan: RepairPlan) -> dict[str, object]:
    return {
        "log": plan.log_id,
        "ranges": [
            {"partition": r.partition, "first": r.first, "last": r.last, "events": r.events}
            for r in plan.ranges
        ],
        "days": [day.isoformat() for day in plan.days],
    }


def _done(done: Repaired) -> dict[str, object]:
    return {
        "events": done.events,
        "days": done.days,
        "out_of_quarantine": done.lifted,
        "still_refused": done.still_refused,
        "left_days": done.left_days,
    }


def _tell(done: Repaired) -> None:
    click.echo(f"{done.events:,} events and the rollups of {done.days:,} days were made anew")
    if done.lifted:
        click.echo(f"{done.lifted} records are out of quarantine")
    if done.still_refused:
        click.echo(f"{len(done.still_refused)} records are refused still and stay in quarantine")
    if done.left_days:
        click.echo(f"left, as retention may have removed single rows: {', '.join(done.left_days)}")
    click.echo("`callmeter verify` compares")
