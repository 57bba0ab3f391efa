"""``callmeter budget``: what may be spent, by whom, in what time, and what happens then."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec

from callmeter.cli import budgetspec as spec
from callmeter.cli import options, target
from callmeter.cli.budgetbegin import begin, say_begun
from callmeter.cli.budgetlog import BudgetLog
from callmeter.cli.budgettable import definition_rows, print_rows, status_rows
from callmeter.errors import UsageError
from callmeter.schema.budgets import (
    DEFAULT_THRESHOLDS,
    Budget,
    check_budget,
    describe_limit,
    next_version,
)
from callmeter.schema.status import BudgetStatus

F = TypeVar("F", bound=Callable[..., Any])


def _place(command: F) -> F:
    return options.directory(options.kafka(options.verbosity(command)))


@click.group(name="budget")
def command() -> None:
    r"""Budgets and objectives: limits in USD and tokens, watched within a second.

    \b
    callmeter budget set team-a --limit 5 --window day --scope project=shop --action stop
    callmeter budget set users --limit 0.50 --window hour --per user
    callmeter budget status
    """


@command.command(name="set")
@click.argument("name")
@click.option("--limit", default=None, metavar="USD", help="Limit in USD.")
@click.option("--tokens", default=None, type=int, help="Limit in tokens, input and output.")
@click.option(
    "--window", default="day", show_default=True, help="hour, day, month (UTC) or session."
)
@click.option(
    "--scope", "scopes", multiple=True, metavar="KEY=VALUE",
    help="Count only these calls: project environment service provider model user session tag:NAME."
    " VALUE* is a prefix; one KEY may come several times. Repeatable.",
)  # fmt: skip
@click.option("--per", default="", metavar="KEY", help="A limit for each value of this.")
@click.option(
    "--thresholds", default=",".join(DEFAULT_THRESHOLDS), show_default=True,
    help="When to alert: 80% of each limit, 4.50 (USD), 100000 tokens.",
)  # fmt: skip
@click.option(
    "--action", default="alert", show_default=True, type=click.Choice(["alert", "stop"]),
    help="stop: guards stop calls at a limit.",
)  # fmt: skip
@click.option("--max-error-rate", default=None, metavar="5%", help="Objective instead of a limit.")
@click.option("--max-latency", default=None, metavar="2s@p95", help="Objective of latency.")
@click.option("--max-open", default=None, metavar="10m", help="Calls open for longer are stuck.")
@click.option("--min-calls", default=20, show_default=True, help="Objectives: calls it takes.")
@click.option("--note", default="", help="For people.")
@click.option("--replace", is_flag=True, help="Change the budget of this name.")
@click.option(
    "--open/--no-open", "opens", default=True, show_default=True,
    help="Bring in what was spent in the window before: see `budget open`.",
)  # fmt: skip
@options.store
@_place
def set_budget(
    name: str,
    limit: str | None,
    tokens: int | None,
    window: str,
    scopes: tuple[str, ...],
    per: str,
    thresholds: str,
    action: str,
    max_error_rate: str | None,
    max_latency: str | None,
    max_open: str | None,
    min_calls: int,
    note: str,
    replace: bool,
    opens: bool,
    store_url: str | None,
    directory: Path | None,
    kafka_url: str | None,
    quiet: bool,
) -> None:
    """Set a budget, and bring in what was spent in its window before, as `budget open` does.

    The latter where a store can be asked: with --store, or while `callmeter up` runs.
    """
    wanted = Budget(
        id=name,
        window=window,
        scope=spec.scope(scopes),
        per="session" if window == "session" and not per else per,
        limit_pico=spec.limit_pico(limit),
        limit_tokens=msgspec.UNSET if tokens is None else tokens,
        thresholds=spec.thresholds(thresholds),
        action="stop" if action == "stop" else "alert",
        slo=spec.objective(
            error_rate=max_error_rate,
            latency=max_latency,
            open_for=max_open,
            min_calls=min_calls,
        ),
        note=note,
    )
    check_budget(wanted)

    def edit(known: Mapping[str, Budget]) -> Budget:
        old = known.get(name)
        living = old is not None and old.state != "deleted"
        if living and not replace:
            raise UsageError(
                f"there is a budget {name!r}: change it with --replace or `budget raise`"
            )
        if replace and not living:
            raise UsageError(f"there is no budget {name!r} to replace")
        resets = 0 if old is None else old.resets
        return next_version(old, msgspec.structs.replace(wanted, resets=resets), _now_us())

    log = BudgetLog(directory, kafka_url)
    budget = log.edit(edit)
    _done(budget, "set", quiet=quiet)
    if opens:
        begin(log, budget, store_url, quiet=quiet)


@command.command(name="raise")
@click.argument("name")
@click.option("--limit", default=None, metavar="USD", help="The new limit in USD.")
@click.option("--tokens", default=None, type=int, help="The new limit in tokens.")
@_place
def raise_budget(
    name: str,
    limit: str | None,
    tokens: int | None,
    directory: Path | None,
    kafka_url: str | None,
    quiet: bool,
) -> None:
    """Set another limit; what was spent in the window still counts."""
    if limit is None and tokens is None:
        raise UsageError("give --limit, --tokens or both")
    pico = spec.limit_pico(limit)

    def change(old: Budget) -> Budget:
        return msgspec.structs.replace(
            old,
            limit_pico=old.limit_pico if limit is None else pico,
            limit_tokens=old.limit_tokens if tokens is None else tokens,
        )

    _change(directory, kafka_url, name, change, "raised", quiet=quiet)


@command.command(name="disable")
@click.argument("name")
@_place
def disable(name: str, directory: Path | None, kafka_url: str | None, quiet: bool) -> None:
    """Count on, but neither alert nor stop."""
    _change(directory, kafka_url, name, _state("disabled"), "disabled", quiet=quiet)


@command.command(name="enable")
@click.argument("name")
@_place
def enable(name: str, directory: Path | None, kafka_url: str | None, quiet: bool) -> None:
    """Alert and stop again."""
    _change(directory, kafka_url, name, _state("active"), "enabled", quiet=quiet)


@command.command(name="delete")
@click.argument("name")
@_place
def delete(name: str, directory: Path | None, kafka_url: str | None, quiet: bool) -> None:
    """Forget a budget and what was spent of it."""
    _change(directory, kafka_url, name, _state("deleted"), "deleted", quiet=quiet)


@command.command(name="reset")
@click.argument("name")
@_place
def reset(name: str, directory: Path | None, kafka_url: str | None, quiet: bool) -> None:
    """Forgive what was spent in the current window, and close the circuit of every guard."""

    def change(old: Budget) -> Budget:
        return msgspec.structs.replace(old, resets=old.resets + 1)

    _change(directory, kafka_url, name, change, "reset", quiet=quiet)


@command.command(name="open")
@click.argument("name")
@options.store
@click.option(
    "--patience", default=60.0, show_default=True, type=click.FloatRange(0),
    help="Seconds to wait for the meters and the store.",
)  # fmt: skip
@_place
def open_balance(
    name: str,
    store_url: str | None,
    patience: float,
    directory: Path | None,
    kafka_url: str | None,
    quiet: bool,
) -> None:
    """Bring in what was spent in the current window before the budget was set.

    It is taken from the store, for each partition below the offset from which its meter counts, and
    counted once: running it again changes nothing.
    """
    log = BudgetLog(directory, kafka_url)
    budget = _known(log.definitions(), name)
    where = None if store_url is not None else directory
    with target.reading(where, store_url) as store:
        pico = log.open(store, budget, patience)
    say_begun(budget, pico, quiet=quiet)


@command.command(name="list")
@options.formats
@_place
def list_budgets(
    as_json: bool, as_csv: bool, directory: Path | None, kafka_url: str | None, quiet: bool
) -> None:
    """List the definitions."""
    found = BudgetLog(directory, kafka_url).definitions()
    print_rows(definition_rows(found.values()), as_json=as_json, as_csv=as_csv)


@command.command(name="status")
@click.argument("name", required=False)
@click.option("--entity", default=None, help="Only this user, model, … of a budget per something.")
@options.formats
@_place
def status(
    name: str | None,
    entity: str | None,
    as_json: bool,
    as_csv: bool,
    directory: Path | None,
    kafka_url: str | None,
    quiet: bool,
) -> None:
    """Print what is spent in the current windows."""
    log = BudgetLog(directory, kafka_url)
    definitions = log.definitions()
    if name is not None:
        definitions = {name: _known(definitions, name)}
    rows = status_rows(definitions, _chosen(log.statuses(), definitions, entity), _now_us())
    print_rows(rows, as_json=as_json, as_csv=as_csv)


@command.command(name="check")
@click.argument("name")
@click.option("--entity", default=None, help="Only this user, model, … of a budget per something.")
@_place
def check(
    name: str, entity: str | None, directory: Path | None, kafka_url: str | None, quiet: bool
) -> int:
    """Exit 0 while there is room, 1 if a limit is reached: for scripts."""
    log = BudgetLog(directory, kafka_url)
    definitions = {name: _known(log.definitions(), name)}
    now_us = _now_us()
    over = [
        each
        for each in _chosen(log.statuses(), definitions, entity)
        if each.state == "exceeded" and not 0 < each.end_us <= now_us
    ]
    if not quiet:
        who = ", ".join(each.entity for each in over[:5] if each.entity)
        says = f"exceeded{f' by {who}' if who else ''}" if over else "within its limit"
        click.echo(f"{name} is {says}: {describe_limit(definitions[name])}")
    return 1 if over else 0


def _chosen(
    statuses: list[BudgetStatus], definitions: Mapping[str, Budget], entity: str | None
) -> list[BudgetStatus]:
    """Statuses of these definitions, as they are now counted."""
    return [
        each
        for each in statuses
        if each.budget in definitions
        and each.basis == definitions[each.budget].basis
        and entity in (None, each.entity)
    ]


def _state(state: str) -> Callable[[Budget], Budget]:
    def change(old: Budget) -> Budget:
        return msgspec.structs.replace(old, state=state)

    return change


def _change(
    directory: Path | None,
    kafka_url: str | None,
    name: str,
    change: Callable[[Budget], Budget],
    what: str,
    *,
    quiet: bool,
) -> None:
    def edit(known: Mapping[str, Budget]) -> Budget:
        old = _known(known, name)
        wanted = change(old)
        check_budget(wanted)
        return next_version(old, wanted, _now_us())

    _done(BudgetLog(directory, kafka_url).edit(edit), what, quiet=quiet)


def _known(known: Mapping[str, Budget], name: str) -> Budget:
    found = known.get(name)
    if found is None or found.state == "deleted":
        raise UsageError(f"there is no budget {name!r}: see `callmeter budget list`")
    return found


def _done(budget: Budget, what: str, *, quiet: bool) -> None:
    if not quiet:
        click.echo(f"{what} {budget.id}, version {budget.version}: {describe_limit(budget)}")


def _now_us() -> int:
    return time.time_ns() // 1000
