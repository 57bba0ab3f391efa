"""Alerts to deliver, and a sender that answers by a script."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any

from callmeter.log.record import LogRecord
from callmeter.schema.alerts import Alert, encode_alert
from callmeter_processors.notify.outcome import Outcome, Sent
from callmeter_processors.notify.sending import Message
from callmeter_processors.notify.targets import Target

LOG = "018f0000-0000-7000-8000-000000000001"
NOW_US = 1_790_000_000_000_000


def alert(number: int = 1, **fields: Any) -> Alert:
    """A crossing of 80 % of 5 USD."""
    return Alert(
        **{
            "v": 1,
            "id": f"{number:032x}",
            "kind": "threshold",
            "rule": "team",
            "severity": "warning",
            "at_us": NOW_US,
            "message": "team has reached 80%: 4.01 USD of 5 USD a day",
            "log": LOG,
            "project": "shop",
            "version": 1,
            "window": "day",
            "start_us": NOW_US // 86_400_000_000 * 86_400_000_000,
            "end_us": (NOW_US // 86_400_000_000 + 1) * 86_400_000_000,
            "measure": "cost",
            "threshold": "80%",
            "value": "4010000000000",
            "limit": "5000000000000",
        }
        | fields
    )


def record(each: Alert, offset: int = 0, partition: int = 0, at_us: int = NOW_US) -> LogRecord:
    """It as a record of ``alerts``."""
    return LogRecord("alerts", partition, offset, at_us, each.rule.encode(), encode_alert(each))


class ScriptedSender:
    """Answers as ``script`` says, then that it was sent. ``sent`` holds (target, alert id)."""

    def __init__(self, script: Iterable[Outcome] = ()) -> None:
        self.script = deque(script)
        self.tried: list[tuple[str, str]] = []
        self.sent: list[tuple[str, str]] = []
        self.messages: list[Message] = []

    def send(self, target: Target, message: Message) -> Outcome:
        outcome = self.script.popleft() if self.script else Sent()
        self.tried.append((target.name, message.alert.id))
        self.messages.append(message)
        if isinstance(outcome, Sent):
            self.sent.append((target.name, message.alert.id))
        return outcome
