"""Envelopes to meter, a runtime in memory that crashes when told, and a naive oracle of totals.

The oracle reads JSON with the standard library and adds up plainly; it shares no code with the
meter.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from callmeter.log.record import LogRecord
from callmeter.schema.envelope import Header, encode
from callmeter_processors.limits import MeterLimits
from callmeter_processors.meter import PartitionMeter
from callmeter_processors.step import Output

NOW_US = 1_790_000_000_000_000
LOG = "018f0000-0000-7000-8000-000000000001"
MODEL_OPERATIONS = {"chat", "text_completion", "embeddings", "generate_content"}


def source(number: int) -> str:
    """A source's id."""
    return f"018f0000-0000-7000-8000-{number:012x}"


def call_end(**fields: Any) -> dict[str, Any]:
    """A model call that ended well; ``fields`` replace, None removes."""
    base: dict[str, Any] = {
        "kind": "call_end",
        "ts_us": NOW_US,
        "call_id": "018f0000-0000-7000-8000-00000000ca11",
        "trace_id": "0af7651916cd43dd8448eb211c80319c",
        "started_us": NOW_US - 1_000_000,
        "operation": "chat",
        "status": "ok",
        "provider": "openai",
        "model": "gpt-4o-mini",
        "latency_us": 1_000_000,
        "usage": {"input": 10, "output": 20},
    }
    return {name: value for name, value in (base | fields).items() if value is not None}


def line(event: Mapping[str, Any]) -> bytes:
    """One event line."""
    return json.dumps(event, separators=(",", ":"), ensure_ascii=False).encode()


def envelope(lines: Sequence[bytes | Mapping[str, Any]], **header: Any) -> bytes:
    """An envelope's bytes; ``header`` replaces fields of the default header."""
    encoded = [each if isinstance(each, bytes) else line(each) for each in lines]
    fields: dict[str, Any] = {
        "source": source(1),
        "seq": 0,
        "n": len(encoded),
        "sent_us": NOW_US,
        "project": "shop",
    }
    head = Header(**(fields | header))
    return encode(head, encoded)


def record(
    value: bytes | None,
    *,
    offset: int = 0,
    key: bytes | None = source(1).encode(),
    partition: int = 0,
    timestamp_us: int = NOW_US,
) -> LogRecord:
    """A record of ``events``."""
    return LogRecord("events", partition, offset, timestamp_us, key, value)


class FixedPrice(NamedTuple):
    """A price applied."""

    cost_pico: int
    source: str = "table"
    version: str = "v1"


@dataclass
class TablePricer:
    """Pico-USD per input and output token by model; half for batch. Unknown models are unpriced."""

    table: Mapping[str, tuple[int, int]] = field(
        default_factory=lambda: {"gpt-4o-mini": (150_000, 600_000), "gpt-4o": (2_500_000, 10**7)}
    )
    asked: list[tuple[str | None, bool]] = field(default_factory=list)

    def price(
        self,
        provider: str,
        model: str,
        at_us: int,
        usage: Mapping[str, int],
        *,
        service_tier: str | None = None,
        batch: bool = False,
    ) -> FixedPrice | None:
        self.asked.append((service_tier, batch))
        if model not in self.table:
            return None
        per_input, per_output = self.table[model]
        pico = usage.get("input", 0) * per_input + usage.get("output", 0) * per_output
        return FixedPrice(pico // 2 if batch else pico)

    def quote(self, provider: str, model: str, at_us: int, units: tuple[str, ...]) -> None:
        """None: every call is asked for."""


class CrashingRuntime:
    """Runs a meter over one partition's records, losing its memory where told.

    Rows, outputs and position are kept only at a checkpoint, together, as both runtimes do.
    """

    def __init__(self, partition: int = 0, limits: MeterLimits | None = None) -> None:
        self.partition = partition
        self.rows: dict[bytes, bytes] = {}
        self.outputs: list[Output] = []
        self.next = 0
        self._limits = limits

    def start(self) -> PartitionMeter:
        """A meter restored from what was kept."""
        meter = PartitionMeter(LOG, self.partition, TablePricer(), self._limits)
        meter.restore(self.rows)
        return meter

    def run(self, records: Sequence[LogRecord], plan: Iterable[str] = ()) -> None:
        """Process everything; ``plan`` says after each record: "go", "checkpoint" or "crash"."""
        meter = self.start()
        at = self.next
        steps = iter(plan)
        while at < len(records):
            meter.process(records[at])
            at += 1
            step = next(steps, "go")
            if step == "checkpoint":
                self.keep(meter, at)
            elif step == "crash":
                meter = self.start()
                at = self.next
        self.keep(meter, at)

    def keep(self, meter: PartitionMeter, next_offset: int) -> None:
        """Commit a checkpoint."""
        done = meter.checkpoint()
        for key, value in done.rows.items():
            if value is None:
                self.rows.pop(key, None)
            else:
                self.rows[key] = value
        self.outputs.extend(done.outputs)
        self.next = next_offset


class Metered(NamedTuple):
    """A metered record taken apart by the standard library."""

    head: dict[str, Any]
    lines: list[dict[str, Any]]


def read(outputs: Iterable[Output]) -> list[Metered]:
    """The metered records among outputs, in order."""
    found = []
    for output in outputs:
        if output.topic != "metered":
            continue
        assert output.value.endswith(b"\n")
        head, *lines = (json.loads(text) for text in output.value.decode().split("\n")[:-1])
        found.append(Metered(head, lines))
    return found


def envelopes(outputs: Iterable[Output]) -> list[Metered]:
    """The envelope records."""
    return [each for each in read(outputs) if each.head["type"] == "envelope"]


def deltas(outputs: Iterable[Output]) -> list[Metered]:
    """The deltas records."""
    return [each for each in read(outputs) if each.head["type"] == "deltas"]


def oracle_bucket(us: int) -> str:
    """The histogram's bucket by integers alone."""
    return str(0 if us <= 1 else (us**32).bit_length() - 1)


Totals = dict[tuple[Any, ...], Any]

_DIMENSIONS = ("minute", "project", "environment", "service")
_OWN = ("provider", "model", "operation", "phase", "status")


def totals_of_lines(metered: Iterable[Metered]) -> Totals:
    """What accepted lines add up to: {(dimensions, measure): value}, computed naively."""
    sums: Counter[tuple[Any, ...]] = Counter()
    spans: dict[tuple[Any, ...], int] = {}
    for head, lines in metered:
        for event in lines:
            if event["kind"] not in ("call_end", "cost"):
                continue
            dims = (
                event["started_us"] // 60_000_000,
                head["project"],
                event.get("environment") or head["environment"],
                event.get("service") or head["service"],
                *(event.get(name, "") for name in _OWN),
            )
            if event["kind"] == "cost":
                sums[(*dims, "cost_pico")] += int(event["cost_pico"])
                continue
            _add_call(sums, spans, dims, event)
    return {key: value for key, value in sums.items() if value} | spans


def _add_call(
    sums: Counter[tuple[Any, ...]],
    spans: dict[tuple[Any, ...], int],
    dims: tuple[Any, ...],
    event: dict[str, Any],
) -> None:
    sums[(*dims, "calls")] += 1
    sums[(*dims, "attempts")] += event.get("attempts", 1)
    sums[(*dims, "failures")] += event["status"] != "ok"
    if event["operation"] in MODEL_OPERATIONS:
        sums[(*dims, "cost_pico")] += int(event.get("cost_pico", "0"))
        sums[(*dims, "usage_unknown")] += "usage" not in event
        sums[(*dims, "unpriced")] += "usage" in event and "cost_pico" not in event
    for unit, count in event.get("usage", {}).items():
        sums[(*dims, "usage", unit)] += count
    for name, short in (("latency_us", "latency"), ("ttft_us", "ttft")):
        if name in event:
            sums[(*dims, f"{short}_count")] += 1
            sums[(*dims, f"{short}_hist", oracle_bucket(event[name]))] += 1
    if "latency_us" in event:
        sums[(*dims, "latency_sum_us")] += event["latency_us"]
        _span(spans, dims, "latency_min_us", min, event["latency_us"])
        _span(spans, dims, "latency_max_us", max, event["latency_us"])
    _span(spans, dims, "first_us", min, event["started_us"])
    _span(spans, dims, "last_us", max, event["started_us"])


_SPANS = {
    "latency_min_us": min,
    "latency_max_us": max,
    "first_us": min,
    "last_us": max,
}


def _span(
    spans: dict[tuple[Any, ...], int], dims: tuple[Any, ...], name: str, pick: Any, value: int
) -> None:
    key = (*dims, name)
    spans[key] = pick(spans[key], value) if key in spans else value


def totals_of_deltas(metered: Iterable[Metered]) -> Totals:
    """What delta lines add up to, in the same shape as ``totals_of_lines``."""
    sums: Counter[tuple[Any, ...]] = Counter()
    spans: dict[tuple[Any, ...], int] = {}
    for _, lines in metered:
        for delta in lines:
            dims = tuple(delta.pop(name) for name in (*_DIMENSIONS, *_OWN))
            for name, value in delta.items():
                if name in _SPANS:
                    _span(spans, dims, name, _SPANS[name], value)
                elif isinstance(value, dict):
                    for inner, count in value.items():
                        sums[(*dims, name, inner)] += count
                else:
                    sums[(*dims, name)] += int(value)
    return {key: value for key, value in sums.items() if value} | spans
