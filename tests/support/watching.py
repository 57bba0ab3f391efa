"""Spend to watch, a runtime in memory that crashes when told, and a naive oracle of its sums."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from callmeter.log.record import LogRecord
from callmeter.money import to_pico
from callmeter.schema.alerts import Alert, decode_alert
from callmeter.schema.budgets import Budget, next_version
from callmeter.schema.live import LiveProject, decode_live
from callmeter.schema.spend import SPEND_KEY, Live, OpeningHeader, Spend, SpendHeader
from callmeter.schema.status import BudgetStatus, decode_status
from callmeter_processors.step import Output
from callmeter_processors.watch.step import PartitionWatch

LOG = "018f0000-0000-7000-8000-000000000001"
#: 2026-09-21T12:00:00Z.
NOON_US = 1_790_000_000_000_000 // 86_400_000_000 * 86_400_000_000 + 12 * 3_600_000_000
HOUR = NOON_US // 3_600_000_000


def budget(name: str = "team", *, usd: str | None = "5", **fields: Any) -> Budget:
    """The first version of a definition, set long before noon."""
    if usd is not None:
        fields["limit_pico"] = str(to_pico(usd))
    return next_version(None, Budget(id=name, **fields), 1)


def usd(amount: str, *, name: str = "team", hour: int = HOUR, **fields: Any) -> Spend:
    """A line of spend of one call."""
    return Spend(
        **{
            "budget": name,
            "basis": 1,
            "window": "day",
            "hour": hour,
            "cost_pico": str(to_pico(amount)),
            "calls": 1,
        }
        | fields
    )


def record(
    lines: Sequence[Spend | Live],
    *,
    partition: int = 0,
    last: int = 0,
    at_us: int = NOON_US,
    **header: Any,
) -> LogRecord:
    """A record of ``spend``; ``last`` is its last offset of ``events``."""
    head = SpendHeader(
        log=LOG, partition=partition, first=last, last=last, log_ts_us=at_us, **header
    )
    return LogRecord("spend", 0, 0, at_us, SPEND_KEY, encode(head, lines))


def opening(lines: Sequence[Spend], *, partition: int = 0, **header: Any) -> LogRecord:
    """A record of an opening balance of budget ``team``."""
    fields: dict[str, Any] = {"budget": "team", "basis": 1, "next": 0} | header
    head = OpeningHeader(log=LOG, partition=partition, log_ts_us=NOON_US, **fields)
    return LogRecord("spend", 0, 0, NOON_US, SPEND_KEY, encode(head, lines))


def encode(head: SpendHeader | OpeningHeader, lines: Sequence[Spend | Live]) -> bytes:
    """A record's bytes."""
    return msgspec.json.Encoder().encode_lines([head, *lines])


@dataclass
class Watched:
    """A watch over one partition, whose memory can be lost; what it wrote, decoded."""

    budgets: Sequence[Budget] = ()
    max_statuses: int = 2000
    rows: dict[bytes, bytes] = field(default_factory=dict)
    outputs: list[Output] = field(default_factory=list)
    statuses: dict[str, BudgetStatus] = field(default_factory=dict)
    live: dict[str, LiveProject] = field(default_factory=dict)

    def start(self) -> PartitionWatch:
        """A watch restored from what was kept."""
        watch = PartitionWatch(LOG, 0, self.max_statuses)
        watch.restore(dict(self.rows))
        watch.configure(self.budgets, 0, 1)
        return watch

    def keep(self, watch: PartitionWatch) -> None:
        """Commit a checkpoint."""
        done = watch.checkpoint()
        for key, value in done.rows.items():
            if value is None:
                self.rows.pop(key, None)
            else:
                self.rows[key] = value
        for output in done.outputs:
            self._read(output)
        self.outputs.extend(done.outputs)

    def _read(self, output: Output) -> None:
        key = output.key.decode()
        if output.topic == "budget-status" and output.value is None:
            self.statuses.pop(key, None)
        elif output.topic == "budget-status":
            self.statuses[key] = decode_status(output.value or b"")
        elif output.topic == "live":
            self.live[key] = decode_live(output.value or b"")

    def run(self, records: Sequence[LogRecord], plan: Iterable[str] = (), tick_us: int = 0) -> None:
        """Process everything; ``plan`` says after each record: "go", "checkpoint" or "crash"."""
        watch = self.start()
        at = kept = 0
        steps = iter(plan)
        while at < len(records):
            watch.process(records[at])
            at += 1
            step = next(steps, "go")
            if step == "checkpoint":
                self.keep(watch)
                kept = at
            elif step == "crash":
                watch = self.start()
                at = kept
        self.keep(watch)
        if tick_us:
            watch.tick(tick_us)
            self.keep(watch)

    @property
    def alerts(self) -> list[Alert]:
        """Every alert said, in order."""
        return [decode_alert(o.value or b"") for o in self.outputs if o.topic == "alerts"]

    def said(self) -> list[tuple[str, str, int]]:
        """Kind, threshold and ordinal of every alert."""
        return [(alert.kind, alert.threshold, alert.ordinal) for alert in self.alerts]


def totals(records: Iterable[LogRecord]) -> Counter[tuple[str, str, int]]:
    """Pico-USD by (budget, entity, day), added up plainly from the records' JSON."""
    sums: Counter[tuple[str, str, int]] = Counter()
    for rec in records:
        for text in (rec.value or b"").split(b"\n")[1:-1]:
            line = msgspec.json.decode(text)
            if line["kind"] == "spend":
                key = (line["budget"], line.get("entity", ""), line["hour"] // 24)
                sums[key] += int(line.get("cost_pico", "0"))
    return sums
