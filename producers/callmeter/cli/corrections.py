"""What another price book says of stored calls, as correction events sent in runs.

A run is a source of its own, ``uuid8("repricing", project, run)``: see ``costruns``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from callmeter.cli.costruns import CostRun
from callmeter.ids import uuid8
from callmeter.money import format_usd, to_pico
from callmeter.schema.events import CallEnd, Cost

if TYPE_CHECKING:
    from callmeter.pricing import Pricer
    from callmeter_sinks.queries.repricing import PricedCall

_NO_TRACE = "0" * 31 + "1"
_encode = msgspec.json.Encoder().encode


@dataclass(slots=True)
class Change:
    """Figures of one provider and model, in pico-USD. ``unpriced`` are calls still without one."""

    calls: int = 0
    changed: int = 0
    newly_priced: int = 0
    unpriced: int = 0
    before_pico: int = 0
    after_pico: int = 0


def corrections(
    calls: Iterable[PricedCall],
    pricer: Pricer,
    changes: dict[tuple[str, str], Change],
    now_us: int,
) -> Iterator[bytes]:
    """One ``cost`` line for each call that costs something else by ``pricer``; adds to ``changes``.

    A call that the new book cannot price keeps what it costs: unknown is not 0.
    """
    for call in calls:
        change = changes.setdefault((call.provider, call.model), Change())
        change.calls += 1
        old = None if call.cost_usd is None else to_pico(call.cost_usd)
        priced = _price(call, pricer)
        new = old if priced is None else priced[0]
        change.before_pico += old or 0
        change.after_pico += new or 0
        if new is None:
            change.unpriced += 1
        if priced is None or new is None or new == old:
            continue
        change.changed += 1
        change.newly_priced += old is None
        yield _encode(_correction(call, old, new, priced[1], now_us))


def _price(call: PricedCall, pricer: Pricer) -> tuple[int, str] | None:
    """As the meter prices: the model asked for, else the one that answered, with its tier."""
    from callmeter_processors.worth import settle

    event = CallEnd(
        ts_us=call.started_us,
        call_id=call.call_id,
        trace_id=_NO_TRACE,
        started_us=call.started_us,
        operation=call.operation,
        status=call.status,
        provider=call.provider,
        model=call.model,
        response_model=call.response_model,
        service_tier=call.service_tier,
        usage=dict(call.usage),
    )
    pico = settle(event, pricer)
    return None if pico is None else (pico, event.price_version)


def _correction(
    call: PricedCall, old_pico: int | None, new_pico: int, version: str, now_us: int
) -> Cost:
    was = "unpriced" if old_pico is None else f"{format_usd(old_pico)} USD"
    return Cost(
        ts_us=max(now_us, call.started_us),
        started_us=call.started_us,
        cost_pico=str(new_pico - (old_pico or 0)),
        source="repricing",
        call_id=call.call_id,
        operation=call.operation,
        provider=call.provider,
        model=call.model,
        phase=call.phase,
        program=call.program,
        user=call.user,
        session=call.session,
        status=call.status,
        service=call.service,
        environment=call.environment,
        tags=dict(call.tags),
        price_version=version,
        note=f"{was}, now {format_usd(new_pico)} USD",
    )


def run_source(project: str, run: int) -> str:
    """The source of a project's n-th repricing, from 0."""
    return uuid8(b"repricing", project.encode(), b"%d" % run)


class Run(CostRun):
    """A project's n-th repricing."""

    def __init__(self, project: str, run: int) -> None:
        super().__init__(run_source(project, run), project, "reprice")
        self.number = run
