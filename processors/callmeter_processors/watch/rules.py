"""Judges a window by its budget: alerts where a threshold or an objective was crossed.

A crossing is judged for each record of ``spend``, so what is said depends on the log alone, not on
how the watch batches it. As long as no money is negative, neither does it depend on the order of
records: a window has crossed a threshold once, or not at all.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from msgspec import UNSET

from callmeter.money import format_usd
from callmeter.schema.alerts import ALERT_VERSION, Alert, AlertKind, alert_id, threshold_id
from callmeter.schema.budgets import PPM, Budget, Level, Slo, describe_limit, levels
from callmeter.schema.histogram import quantile_us
from callmeter.schema.status import BudgetState
from callmeter.schema.windows import HOUR_US, window_of_hour
from callmeter_processors.watch.entity import Crossing, Entity, WindowSum

#: A crossing is taken back when the measure is so far below the threshold.
HYSTERESIS_PERCENT = 5
_SLO = "slo"
_SAYS = {
    AlertKind.THRESHOLD.value: "has reached {}",
    AlertKind.WITHDRAWN.value: "is below {} again",
    AlertKind.MOVED.value: "has changed after its window ended, beyond {}",
}


class Moment(NamedTuple):
    """When and where a window is judged: the log's id and the log time of what changed it."""

    log: str
    log_us: int


class Terms:
    """A definition, ready to judge by."""

    __slots__ = ("budget", "levels", "limits", "prefix")

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self.prefix = f"{budget.terms}|"
        self.levels: list[tuple[str, Level]] = []
        self.limits: dict[str, int] = {}
        if budget.slo is UNSET:
            self.levels = [(f"{self.prefix}{e.measure}|{e.text}", e) for e in levels(budget)]
            if budget.limit_pico is not UNSET:
                self.limits["cost"] = int(budget.limit_pico)
            if budget.limit_tokens is not UNSET:
                self.limits["tokens"] = budget.limit_tokens

    def judge(self, entity: Entity, start_us: int, moment: Moment) -> list[Alert]:
        """Judge one window that has changed: alerts in a fixed order. Disabled rules say none."""
        budget = self.budget
        end_us = window_of_hour(entity.window, start_us // HOUR_US)[1]
        if budget.state != "active" or 0 < end_us <= budget.terms_us:
            return []
        window = entity.windows[start_us]
        if budget.slo is not UNSET:
            return list(self._judge_slo(budget.slo, entity, start_us, window, moment))
        found: list[Alert] = []
        cost = window.cost - window.forgiven_cost
        tokens = window.tokens - window.forgiven_tokens
        crossings = window.crossings
        for key, level in self.levels:
            is_cost = level.measure == "cost"
            value = cost if is_cost else tokens
            if value < level.at and key not in crossings:
                continue
            on_time = value - (window.late_cost if is_cost else window.late_tokens)
            crossing = crossings.get(key)
            if crossing is None:
                crossing = crossings[key] = Crossing()
            kinds = _moves(crossing, value, level.at, on_time=on_time, late=window.late)
            found.extend(
                self._crossed(
                    self._alert(
                        kind, self._own(entity, start_us, level, crossing), entity, start_us, moment
                    ),
                    level,
                    crossing,
                    value,
                )
                for kind in kinds
            )
        return found

    def _own(self, entity: Entity, start_us: int, level: Level, crossing: Crossing) -> str:
        """The id of the newest crossing of a threshold."""
        return threshold_id(
            self.budget.id,
            self.budget.terms,
            entity.name,
            start_us,
            measure=level.measure,
            threshold=level.text,
            ordinal=crossing.count - 1,
        )

    def _crossed(self, alert: Alert, level: Level, crossing: Crossing, value: int) -> Alert:
        limit = self.limits.get(level.measure)
        if alert.kind == AlertKind.THRESHOLD:
            at_limit = limit is not None and level.at >= limit
            alert.severity = "critical" if at_limit else "warning"
        alert.measure = level.measure
        alert.threshold = level.text
        alert.ordinal = crossing.count - 1
        alert.value = str(value)
        alert.limit = "" if limit is None else str(limit)
        says = _SAYS[alert.kind].format(level.text)
        amount = f"{format_usd(value)} USD" if level.measure == "cost" else f"{value} tokens"
        alert.message = f"{_name(alert)} {says}: {amount} of {describe_limit(self.budget)}"
        return alert

    def _judge_slo(
        self, slo: Slo, entity: Entity, start_us: int, window: WindowSum, moment: Moment
    ) -> Iterator[Alert]:
        value = slo_value(slo, window)
        if value is None:
            return
        limit = slo.max_ppm if slo.measure == "error_rate" else slo.max_us
        key = self.prefix + _SLO
        crossing = window.crossings.get(key)
        if value > limit and (crossing is None or not crossing.active):
            if crossing is None:
                crossing = window.crossings[key] = Crossing()
            crossing.active = True
            crossing.count += 1
            kind = AlertKind.SLO
        elif (
            crossing is not None
            and crossing.active
            and value * 100 <= limit * (100 - HYSTERESIS_PERCENT)
        ):
            crossing.active = False
            kind = AlertKind.SLO_MET
        else:
            return
        budget = self.budget
        ordinal = crossing.count - 1
        own = alert_id(_SLO, budget.id, budget.terms, entity.name, start_us, ordinal)
        alert = self._alert(kind, own, entity, start_us, moment)
        alert.severity = "critical" if kind is AlertKind.SLO else "info"
        alert.measure = slo.measure
        alert.ordinal = ordinal
        alert.value, alert.limit = str(value), str(limit)
        says = "is broken" if kind is AlertKind.SLO else "is met again"
        shown = f"{value / 10_000:g} %" if slo.measure == "error_rate" else f"{value / PPM:g} s"
        alert.message = f"{_name(alert)} {says}: {shown}; {describe_limit(budget)}"
        yield alert

    def _alert(
        self, kind: AlertKind, own: str, entity: Entity, start_us: int, moment: Moment
    ) -> Alert:
        end_us = window_of_hour(entity.window, start_us // HOUR_US)[1]
        raised = kind in (AlertKind.THRESHOLD, AlertKind.SLO)
        projects = self.budget.scope.get("project", [])
        return Alert(
            v=ALERT_VERSION,
            id=own if raised else alert_id(kind.value, own),
            kind=kind.value,
            rule=entity.budget,
            severity="info",
            at_us=moment.log_us,
            message="",
            log=moment.log,
            project=projects[0] if len(projects) == 1 else "",
            version=self.budget.version,
            entity=entity.name,
            window=entity.window,
            start_us=start_us,
            end_us=end_us,
            late=0 < end_us <= moment.log_us,
            corrects="" if raised else own,
        )

    def state(self, window: WindowSum | None) -> BudgetState:
        """Where a window stands; None is a window in which nothing happened."""
        if self.budget.state == "disabled":
            return "disabled"
        if window is None:
            return "ok"
        spent = {
            "cost": window.cost - window.forgiven_cost,
            "tokens": window.tokens - window.forgiven_tokens,
        }
        if any(spent[measure] >= limit for measure, limit in self.limits.items()):
            return "exceeded"
        active = [key for key, c in window.crossings.items() if c.active]
        if self.prefix + _SLO in active:
            return "exceeded"
        return "warning" if any(key.startswith(self.prefix) for key in active) else "ok"

    def outdate(self, entity: Entity) -> None:
        """Drop what was crossed under other terms."""
        for window in entity.windows.values():
            if any(not key.startswith(self.prefix) for key in window.crossings):
                window.crossings = {
                    key: crossing
                    for key, crossing in window.crossings.items()
                    if key.startswith(self.prefix)
                }


def _moves(
    crossing: Crossing, value: int, at: int, *, on_time: int, late: bool
) -> Iterator[AlertKind]:
    """What a threshold has to say now that the measure is ``value``; marks it said."""
    if value >= at and not crossing.active:
        crossing.active = True
        crossing.moved = False
        crossing.count += 1
        yield AlertKind.THRESHOLD
    elif crossing.active and value * 100 < at * (100 - HYSTERESIS_PERCENT):
        crossing.active = False
        yield AlertKind.WITHDRAWN
    # What was on time had crossed it: the late part changed what was said of a closed window.
    if crossing.active and late and not crossing.moved and on_time >= at:
        crossing.moved = True
        yield AlertKind.MOVED


def slo_value(slo: Slo, window: WindowSum) -> int | None:
    """The objective's measure in ppm or µs; None while there are too few calls to say."""
    if window.calls < slo.min_calls:
        return None
    if slo.measure == "error_rate":
        return window.failures * PPM // window.calls
    if slo.measure == "open":  # told of by the meter, which knows the calls
        return None
    quantile = quantile_us(window.hist or {}, slo.quantile_ppm / PPM)
    return None if quantile is None else round(quantile)


def _name(alert: Alert) -> str:
    return f"{alert.rule} ({alert.entity})" if alert.entity else alert.rule
