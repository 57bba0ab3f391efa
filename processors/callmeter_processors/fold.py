"""Folds accepted events into deltas per minute and dimensions, and into a checkpoint's controls.

Every measure is a sum, a ``min`` or a ``max``, so deltas merge in any order and a late event is
just a delta to an old minute (law 3).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec
from msgspec import UNSET

from callmeter.schema.envelope import Header
from callmeter.schema.events import MODEL_OPERATIONS, CallEnd, Cost, Event
from callmeter.schema.histogram import bucket
from callmeter.schema.metered import Controls, Delta, Refused
from callmeter_processors.worth import Pricer, settle

MINUTE_US = 60_000_000
#: Units in one delta line or in the controls; more go to further lines, or under OTHER_UNITS.
MAX_UNITS_PER_LINE = 512
OTHER_UNITS = "other units"

#: (minute, provider, model, operation, phase, status) within (project, environment, service).
_Key = tuple[int, str, str, str, str, str]
_Scope = tuple[str, str, str]


class Row:
    """The running measures of one minute and combination of dimensions."""

    __slots__ = (
        "attempts",
        "calls",
        "cost_pico",
        "failures",
        "first_us",
        "last_us",
        "latency_count",
        "latency_hist",
        "latency_max_us",
        "latency_min_us",
        "latency_sum_us",
        "ttft_count",
        "ttft_hist",
        "unpriced",
        "usage",
        "usage_unknown",
    )

    def __init__(self) -> None:
        self.calls = self.attempts = self.failures = 0
        self.cost_pico = self.unpriced = self.usage_unknown = 0
        self.usage: dict[str, int] = {}
        self.latency_count = self.latency_sum_us = 0
        self.latency_min_us = self.latency_max_us = 0
        self.latency_hist: dict[int, int] = {}
        self.ttft_count = 0
        self.ttft_hist: dict[int, int] = {}
        self.first_us = self.last_us = 0

    def add_call(self, call: CallEnd, pricer: Pricer) -> None:
        """Add one call, and have it priced if it is a model's."""
        started_us = call.started_us
        if not self.calls:
            self.first_us = self.last_us = started_us
        elif started_us < self.first_us:
            self.first_us = started_us
        elif started_us > self.last_us:
            self.last_us = started_us
        self.calls += 1
        self.attempts += call.attempts
        if call.status != "ok":
            self.failures += 1
        usage = call.usage
        if usage is not UNSET:
            sums = self.usage
            for unit, count in usage.items():
                sums[unit] = sums.get(unit, 0) + count
        if call.operation in MODEL_OPERATIONS:
            pico = settle(call, pricer)
            if pico is not None:
                self.cost_pico += pico
            elif usage is not UNSET:
                self.unpriced += 1
            if usage is UNSET:
                self.usage_unknown += 1
        self._add_times(call)

    def _add_times(self, call: CallEnd) -> None:
        latency_us = call.latency_us
        if latency_us is not UNSET:
            if not self.latency_count:
                self.latency_min_us = self.latency_max_us = latency_us
            elif latency_us < self.latency_min_us:
                self.latency_min_us = latency_us
            elif latency_us > self.latency_max_us:
                self.latency_max_us = latency_us
            self.latency_count += 1
            self.latency_sum_us += latency_us
            index = bucket(latency_us)
            self.latency_hist[index] = self.latency_hist.get(index, 0) + 1
        ttft_us = call.ttft_us
        if ttft_us is not UNSET:
            self.ttft_count += 1
            index = bucket(ttft_us)
            self.ttft_hist[index] = self.ttft_hist.get(index, 0) + 1


class Fold:
    """The deltas of one checkpoint. Not reused: the next checkpoint gets a new one."""

    def __init__(self, pricer: Pricer) -> None:
        self._pricer = pricer
        self._scopes: dict[_Scope, dict[_Key, Row]] = {}
        self._costs = 0

    def add(self, header: Header, events: Iterable[Event | Refused]) -> None:
        """Price and fold the events of one accepted envelope. Calls get their cost filled in."""
        scope = (header.project, header.environment, header.service)
        rows = self._scopes.get(scope)
        if rows is None:
            rows = self._scopes[scope] = {}
        pricer = self._pricer
        for event in events:
            if isinstance(event, CallEnd):
                key = (
                    event.started_us // MINUTE_US,
                    event.provider,
                    event.model,
                    event.operation,
                    event.phase,
                    event.status,
                )
                row = rows.get(key)
                if row is None:
                    row = rows[key] = Row()
                row.add_call(event, pricer)
            elif isinstance(event, Cost):
                self._add_cost(header, event)

    def _add_cost(self, header: Header, cost: Cost) -> None:
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
        row = self._scopes.setdefault(scope, {}).setdefault(key, Row())
        row.cost_pico += int(cost.cost_pico)
        self._costs += 1

    def controls(self) -> Controls:
        """The controls that are sums over the deltas; counts of envelopes are the meter's."""
        total = Controls(costs=self._costs)
        cost_pico = 0
        usage: dict[str, int] = {}
        for rows in self._scopes.values():
            for key, row in rows.items():
                if key[3] in MODEL_OPERATIONS:
                    total.calls += row.calls
                else:
                    total.operations += row.calls
                total.failures += row.failures
                total.unpriced += row.unpriced
                total.usage_unknown += row.usage_unknown
                cost_pico += row.cost_pico
                for unit, count in row.usage.items():
                    usage[unit] = usage.get(unit, 0) + count
        if len(usage) > MAX_UNITS_PER_LINE:
            kept = dict(sorted(usage.items())[:MAX_UNITS_PER_LINE])
            kept[OTHER_UNITS] = sum(usage.values()) - sum(kept.values())
            usage = kept
        total.cost_pico = str(cost_pico)
        total.usage = usage
        return total

    def deltas(self) -> Iterator[Delta]:
        """The deltas folded so far; several of the same dimensions where there are many units."""
        for (project, environment, service), rows in self._scopes.items():
            for (minute, provider, model, operation, phase, status), row in rows.items():
                delta = Delta(
                    minute=minute,
                    project=project,
                    environment=environment,
                    service=service,
                    provider=provider,
                    model=model,
                    operation=operation,
                    phase=phase,
                    status=status,
                    calls=row.calls,
                    attempts=row.attempts,
                    failures=row.failures,
                    usage=row.usage,
                    cost_pico=str(row.cost_pico),
                    unpriced=row.unpriced,
                    usage_unknown=row.usage_unknown,
                    latency_count=row.latency_count,
                    latency_sum_us=row.latency_sum_us,
                    latency_min_us=row.latency_min_us if row.latency_count else UNSET,
                    latency_max_us=row.latency_max_us if row.latency_count else UNSET,
                    latency_hist=row.latency_hist,
                    ttft_count=row.ttft_count,
                    ttft_hist=row.ttft_hist,
                    first_us=row.first_us if row.calls else UNSET,
                    last_us=row.last_us if row.calls else UNSET,
                )
                if len(row.usage) > MAX_UNITS_PER_LINE:
                    yield from _split_units(delta)
                else:
                    yield delta


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
