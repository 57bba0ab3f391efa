"""The opening balance that ``budget set`` brings in after the definition, where it can be had."""

from __future__ import annotations

import click

from callmeter.cli import target
from callmeter.cli.budgetlog import BudgetLog
from callmeter.errors import CallmeterError
from callmeter.money import format_usd
from callmeter.schema.budgets import Budget

#: Whoever set a budget waits so long for its opening; it can be had later too.
_PATIENCE_S = 15.0


def begin(log: BudgetLog, budget: Budget, store_url: str | None, *, quiet: bool) -> None:
    """Bring in what was spent before, from ``store_url`` or the store of a running ``up``.

    The budget stands whatever happens here: if there is no store to ask, or it is not ready in
    time, one line says how to do it later.
    """
    url = store_url or log.running_store
    if url is None:
        again = f"`callmeter budget open {budget.id}` brings it in"
        _later(budget, f"{log.no_store}; {again}", quiet=quiet)
        return
    try:
        with target.reading(None, url) as store:
            pico = log.open(store, budget, _PATIENCE_S)
    except CallmeterError as exc:
        _later(budget, str(exc), quiet=quiet)
    else:
        say_begun(budget, pico, quiet=quiet)


def say_begun(budget: Budget, pico: int, *, quiet: bool) -> None:
    """Every meter counts it now."""
    if not quiet:
        click.echo(f"{budget.id} begins with {format_usd(pico)} USD")


def _later(budget: Budget, why: str, *, quiet: bool) -> None:
    if not quiet:
        click.echo(f"what {budget.id} had spent before is not in: {why}", err=True)
