"""An alert that nothing raised, to try targets with."""

from __future__ import annotations

from callmeter.ids import uuid7
from callmeter.schema.alerts import ALERT_VERSION, Alert, AlertKind, alert_id
from callmeter.schema.windows import HOUR_US

_DAY_US = 24 * HOUR_US


def sample_alert(now_us: int) -> Alert:
    """A threshold of a budget that there is not; each has an id of its own."""
    start_us = now_us // _DAY_US * _DAY_US
    return Alert(
        v=ALERT_VERSION,
        id=alert_id("sample", uuid7()),
        kind=AlertKind.THRESHOLD,
        rule="sample-budget",
        severity="info",
        at_us=now_us,
        message="sample-budget has reached 80%: 4.01 USD of 5 USD a day (this is a test)",
        log="",
        project="sample",
        version=1,
        window="day",
        start_us=start_us,
        end_us=start_us + _DAY_US,
        measure="cost",
        threshold="80%",
        value="4010000000000",
        limit="5000000000000",
    )
