"""Folds accepted events into deltas per minute and dimensions, and into a checkpoint's controls.

Every measure is a sum, a ``min`` or a ``max``, so deltas merge in any order and a late event is
just a delta to an old minute (law 3).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import msgspec
from msgspec import UNSET

from callmeter.schema.events import CallBegin, CallEnd, Cost, Event, Heartbeat
from callmeter.schema.header import EnvelopeHeader
from callmeter.schema.metered import Controls, Delta, Refused
from callmeter_processors.foldrow import MINUTE_US, OK, Alike, Row, RowKey, Scope, Units
from callmeter_processors.ordinary import Reader, Run
from callmeter_processors.spending import FineSums, Spending
from callmeter_processors.worth import Pricer

#: Units in one delta line or in the controls; more go to further lines, or under OTHER_UNITS.
MAX_UNITS_PER_LINE = 512
OTHER_UNITS = "other units"


_Place = tuple[int, str, str, str, str, str, Units]


class _Kept(NamedTuple):
    """Of one scope: its rows, and where a call finds its place in them by one look; ``known`` is
    the reader's.
    """

    rows: dict[RowKey, Row]
    alike: dict[_Place, Alike]
    known: dict[bytes, Alike]


class Fold:
    """The deltas of one checkpoint. Not reused: the next checkpoint gets a new one."""

    def __init__(self, pricer: Pricer, spending: Spending | None = None) -> None:
        self._pricer = pricer
        self._quote = pricer.quote
        self._spending = spending
        self._scopes: dict[Scope, _Kept] = {}
        self._costs = 0
        self._shared: dict[Any, Any] = {}

    def add(self, header: EnvelopeHeader, events: Iterable[Event | Refused]) -> bool:
        """Price and fold events of one accepted envelope. Calls get their cost filled in.

        True if a ``call_begin`` or a ``heartbeat`` is among them.
        """
        told = False
        scope, kept = self._kept(header)
        places = kept.alike
        pricer = self._pricer
        for event in events:
            if type(event) is CallEnd:
                key = _place_of(event)
                alike = places.get(key)
                if alike is None:
                    alike = self._alike(scope, kept, key)
                alike.add(event, event.started_us, event.usage, pricer)
            elif isinstance(event, Cost):
                self._add_cost(header, event)
            elif isinstance(event, CallBegin | Heartbeat):
                told = True
        return told

    def read(
        self, reader: Reader, header: EnvelopeHeader, value: bytes, fence_us: int
    ) -> list[Run]:
        """Fold what a reader can take of an envelope; the rest is for the judge and ``add``."""
        scope, kept = self._kept(header)

        def meet(call: CallEnd) -> Alike:
            key = _place_of(call)
            return kept.alike.get(key) or self._alike(scope, kept, key)

        return reader.read(value, fence_us, kept.known, meet, self._pricer)

    def _kept(self, header: EnvelopeHeader) -> tuple[Scope, _Kept]:
        """What an envelope is folded into, by the prices that hold now."""
        if self._pricer.quote != self._quote:
            self._forget_quotes()
        scope = (header.project, header.environment, header.service)
        return scope, self._keep(scope)

    def _keep(self, scope: Scope) -> _Kept:
        kept = self._scopes.get(scope)
        if kept is None:
            kept = self._scopes[scope] = _Kept({}, {}, {})
        return kept

    def _forget_quotes(self) -> None:
        """Another book is in force: calls are priced one by one until the next checkpoint."""
        self._quote = self._pricer.quote
        for kept in self._scopes.values():
            for alike in kept.alike.values():
                alike.cost_of = None

    def _alike(self, scope: Scope, kept: _Kept, key: _Place) -> Alike:
        """A new place for calls. Its key is what will be compared with each of their fields: the
        values that rows have in common are the same objects, few enough for the first cache.
        """
        share = self._shared.setdefault
        minute, provider, model, operation, phase, status, units = key
        units = share(units, units)
        own = (
            share(minute, minute),
            share(provider, provider),
            share(model, model),
            share(operation, operation),
            share(phase, phase),
            share(status, status),
        )
        row = self._row(kept.rows, own)
        watched = self._watching(scope, own) if row.is_model else ()
        alike = Alike(units, row.is_model, watched)
        alike.ask_price(own, self._pricer)
        row.alike.append(alike)
        kept.alike[(*own, units)] = alike
        return alike

    def _row(self, rows: dict[RowKey, Row], key: RowKey) -> Row:
        row = rows.get(key)
        if row is None:
            row = rows[key] = Row(key)
        return row

    def _watching(self, scope: Scope, key: RowKey) -> tuple[FineSums, ...]:
        if self._spending is None:
            return ()
        return self._spending.watching((*scope, key[1], key[2]), key[0] // 60)

    def _add_cost(self, header: EnvelopeHeader, cost: Cost) -> None:
        scope = (
            header.project,
            cost.environment or header.environment,
            cost.service or header.service,
        )
        key = (
            cost.started_us // MINUTE_US,
            cost.provider,
            cost.model,
            cost.operation,
            cost.phase,
            cost.status,
        )
        pico = int(cost.cost_pico)
        self._row(self._keep(scope).rows, key).cost_pico += pico
        self._costs += 1
        for fine in self._watching(scope, key):
            fine.add_cost(cost, pico)

    def controls(self) -> Controls:
        """The controls that are sums over the deltas; counts of envelopes are the meter's."""
        total = Controls(costs=self._costs)
        cost_pico = 0
        usage: dict[str, int] = {}
        for kept in self._scopes.values():
            for row in kept.rows.values():
                row.gather()
                calls = row.calls
                if row.is_model:
                    total.calls += calls
                else:
                    total.operations += calls
                if row.key[5] != OK:
                    total.failures += calls
                total.unpriced += row.unpriced
                total.usage_unknown += row.usage_unknown
                cost_pico += row.cost_pico
                for unit, count in row.usage.items():
                    usage[unit] = usage.get(unit, 0) + count
        if len(usage) > MAX_UNITS_PER_LINE:
            named = dict(sorted(usage.items())[:MAX_UNITS_PER_LINE])
            named[OTHER_UNITS] = sum(usage.values()) - sum(named.values())
            usage = named
        total.cost_pico = str(cost_pico)
        total.usage = usage
        return total

    def deltas(self) -> Iterator[Delta]:
        """The deltas folded so far; several of the same dimensions where there are many units.

        Budgets are told of each: to be read once, and to its end.
        """
        for scope, kept in self._scopes.items():
            for row in kept.rows.values():
                delta = row.delta(scope)
                if self._spending is not None:
                    self._spending.add_delta(delta)
                if len(delta.usage) > MAX_UNITS_PER_LINE:
                    yield from _split_units(delta)
                else:
                    yield delta


def _place_of(call: CallEnd) -> _Place:
    usage = call.usage
    return (
        call.started_us // MINUTE_US,
        call.provider,
        call.model,
        call.operation,
        call.phase,
        call.status,
        None if usage is UNSET else tuple(usage),
    )


def _split_units(delta: Delta) -> Iterator[Delta]:
    """The same sums in lines of at most MAX_UNITS_PER_LINE units; only the first has the rest."""
    units = list(delta.usage.items())
    for start in range(0, len(units), MAX_UNITS_PER_LINE):
        usage = dict(units[start : start + MAX_UNITS_PER_LINE])
        if not start:
            yield msgspec.structs.replace(delta, usage=usage)
            continue
        yield Delta(
            minute=delta.minute,
            project=delta.project,
            environment=delta.environment,
            service=delta.service,
            provider=delta.provider,
            model=delta.model,
            operation=delta.operation,
            phase=delta.phase,
            status=delta.status,
            usage=usage,
        )
