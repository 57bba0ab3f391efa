"""Metered records said line by line: a test names what it needs and knows every figure."""

from __future__ import annotations

import uuid
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import orjson

from callmeter.money import to_pico
from callmeter.schema.events import MODEL_OPERATIONS
from callmeter.schema.histogram import bucket

LOG = "019a0000-0000-7000-8000-000000000001"
DIMENSIONS = (
    "project", "environment", "service", "provider", "model", "operation", "phase", "status",
)  # fmt: skip


def us(moment: str) -> int:
    """``2026-03-01T12:00`` in UTC as microseconds."""
    return int(datetime.fromisoformat(moment).replace(tzinfo=UTC).timestamp()) * 1_000_000


def call_id(number: int) -> str:
    return str(uuid.UUID(int=(0x019A << 112) | (7 << 76) | (2 << 62) | number))


@dataclass
class Book:
    """One partition of ``metered``: envelopes are said, deltas and controls follow from them.

    Follows docs/reference/formats.md by hand, without the meter.
    """

    partition: int = 0
    project: str = "shop"
    origin: int = 0
    first: int = 0
    log_ts_us: int = 0
    records: list[bytes] = field(default_factory=list)
    deltas: dict[tuple[Any, ...], dict[str, Any]] = field(default_factory=dict)
    controls: Counter[str] = field(default_factory=Counter)
    usage: Counter[str] = field(default_factory=Counter)
    sources: dict[str, tuple[int, int]] = field(default_factory=lambda: defaultdict(lambda: (0, 0)))

    def call(self, started: str = "2026-03-01T12:00", **fields: Any) -> dict[str, Any]:
        """A ``call_end``; ``cost`` in USD as text, ``usage`` None for unknown."""
        number = fields.pop("number", self.controls["calls"] + 1000 * self.origin)
        cost = fields.pop("cost", "0.001")
        usage = fields.pop("usage", {"input": 10, "output": 5})
        event: dict[str, Any] = {
            "kind": "call_end", "ts_us": us(started) + 1, "call_id": call_id(number),
            "trace_id": f"{1:032x}", "started_us": us(started), "operation": "chat",
            "status": "ok", "provider": "openai", "model": "gpt-4o", "latency_us": 1000,
        }  # fmt: skip
        if usage is not None:
            event["usage"] = usage
        if cost is not None:
            event["cost_pico"] = str(to_pico(cost))
        return {name: value for name, value in {**event, **fields}.items() if value is not None}

    def envelope(self, *events: Mapping[str, Any], **header: Any) -> None:
        """An envelope with these lines; header fields may be overridden."""
        source = header.get("source", "019a0000-0000-7000-8000-00000000aaaa")
        verdict = header.get("verdict", "accepted")
        seq, accepted = self.sources[source]
        refused = sum(event["kind"] == "refused" for event in events)
        if verdict == "accepted":
            self.sources[source] = (seq + 1, accepted + len(events))
            accepted += len(events)
        whole = verdict == "refused"
        head = {
            "v": 1, "type": "envelope", "log": LOG, "partition": self.partition,
            "offset": self.origin, "log_ts_us": self.log_ts_us or us("2026-03-01T12:00"),
            "verdict": verdict, "reason": "", "detail": "", "source": source, "seq": seq,
            "n": len(events), "sent_us": us("2026-03-01T12:00"), "project": self.project,
            "environment": "prod", "service": "api", "sdk": "test", "accepted": accepted,
            "dropped": {}, "last": False, "events": 0 if whole else len(events) - refused,
            "refused": 0 if whole else refused, "bytes": 100,
        } | header  # fmt: skip
        self.controls["envelopes"] += 1
        self.controls["duplicates"] += verdict == "duplicate"
        self.controls["refused_envelopes"] += whole
        if verdict == "accepted":
            self.controls["events"] += len(events) - refused
            self.controls["refused"] += refused
            for event in events:
                self._fold(event, head)
        lines = [orjson.dumps(event) for event in events]
        self.records.append(b"\n".join((orjson.dumps(head), *lines, b"")))
        self.origin += 1

    def checkpoint(self, **controls: Any) -> None:
        """The deltas of what came since the last one; ``controls`` overrides its totals."""
        head = {
            "v": 1, "type": "deltas", "log": LOG, "partition": self.partition, "first": self.first,
            "last": self.origin - 1, "part": 0, "parts": 1,
            "log_ts_us": self.log_ts_us or us("2026-03-01T12:00"),
            "controls": {
                **self.controls, "cost_pico": str(self.controls["cost_pico"]),
                "usage": dict(self.usage),
            } | controls,
        }  # fmt: skip
        lines = []
        for delta in self.deltas.values():
            said = {**delta, "cost_pico": str(delta["cost_pico"]), "usage": dict(delta["usage"])}
            lines.append(orjson.dumps({n: v for n, v in said.items() if v not in (0, {}, None)}))
        self.records.append(b"\n".join((orjson.dumps(head), *lines, b"")))
        self.first = self.origin
        self.deltas, self.controls, self.usage = {}, Counter(), Counter()

    def take(self) -> list[bytes]:
        """The records said so far, to be landed; those that follow begin anew."""
        taken, self.records = self.records, []
        return taken

    def _fold(self, event: Mapping[str, Any], head: Mapping[str, Any]) -> None:
        if event["kind"] not in ("call_end", "cost"):
            return
        dims = {"environment": head["environment"], "service": head["service"], **event}
        dims["project"] = head["project"]
        key = tuple(str(dims.get(name, "")) for name in DIMENSIONS)
        minute = event["started_us"] // 60_000_000
        delta = self.deltas.setdefault(
            (minute, key),
            {"minute": minute, **dict(zip(DIMENSIONS, key, strict=True)), "usage": Counter()}
            | dict.fromkeys(
                ("calls", "attempts", "failures", "cost_pico", "unpriced", "usage_unknown",
                 "latency_count", "latency_sum_us", "ttft_count"), 0,
            )
            | {"latency_hist": {}, "ttft_hist": {}, "latency_min_us": None, "latency_max_us": None},
        )  # fmt: skip
        cost = int(event.get("cost_pico", 0))
        delta["cost_pico"] += cost
        self.controls["cost_pico"] += cost
        if event["kind"] == "cost":
            self.controls["costs"] += 1
            return
        is_call = event["operation"] in MODEL_OPERATIONS
        self.controls["calls" if is_call else "operations"] += 1
        counted = {
            "calls": 1,
            "attempts": event.get("attempts", 1),
            "failures": int(event["status"] != "ok"),
            "unpriced": int(is_call and "usage" in event and "cost_pico" not in event),
            "usage_unknown": int(is_call and "usage" not in event),
        }
        for name, value in counted.items():
            delta[name] += value
        for name in ("failures", "unpriced", "usage_unknown"):
            self.controls[name] += counted[name]
        delta["usage"].update(event.get("usage", {}))
        self.usage.update(event.get("usage", {}))
        latency = event.get("latency_us")
        if latency is not None:
            delta["latency_count"] += 1
            delta["latency_sum_us"] += latency
            low, high = delta["latency_min_us"], delta["latency_max_us"]
            delta["latency_min_us"] = latency if low is None else min(low, latency)
            delta["latency_max_us"] = latency if high is None else max(high, latency)
            _count(delta["latency_hist"], latency)
        if event.get("ttft_us") is not None:
            delta["ttft_count"] += 1
            _count(delta["ttft_hist"], event["ttft_us"])


def _count(histogram: dict[str, int], duration_us: int) -> None:
    name = str(bucket(duration_us))
    histogram[name] = histogram.get(name, 0) + 1
