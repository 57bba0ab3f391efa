"""Metered records made up by a seed, with the truth about them: what a store must hold afterwards.

Written from docs/reference/formats.md alone, without the meter, so that the sink's tests would
notice if meter and sink agreed on something the contract does not say.
"""

from __future__ import annotations

import random
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import orjson

from callmeter.schema.histogram import bucket

NOW_US = 1_753_000_000_000_000
MODEL_OPERATIONS = ("chat", "text_completion", "embeddings", "generate_content")
DIMENSIONS = (
    "project", "environment", "service", "provider", "model", "operation", "phase", "status",
)  # fmt: skip


@dataclass
class Truth:
    """What was put into the records, added up."""

    counts: Counter[str] = field(default_factory=Counter)
    cost_pico: int = 0
    usage: Counter[str] = field(default_factory=Counter)
    latency: Counter[int] = field(default_factory=Counter)
    ttft: Counter[int] = field(default_factory=Counter)
    identities: set[tuple[int, int, int]] = field(default_factory=set)  # (partition, origin, idx)

    def add(self, other: Truth) -> None:
        self.counts.update(other.counts)
        self.cost_pico += other.cost_pico
        self.usage.update(other.usage)
        self.latency.update(other.latency)
        self.ttft.update(other.ttft)
        self.identities |= other.identities


class MeteredStream:
    """One partition's stream of metered records, checkpoint by checkpoint.

    ``months`` spreads event times over that many months, so that inserts touch several partitions
    of every table. ``plain`` makes call_end lines only, as a benchmark wants them.
    """

    def __init__(
        self, log_id: str, partition: int, seed: int = 1, *, months: int = 3, plain: bool = False
    ) -> None:
        self.log_id = log_id
        self.partition = partition
        self.truth = Truth()
        self.next_origin = 0
        self._months = months
        self._plain = plain
        self._random = random.Random(f"{seed}:{partition}")
        self._source = str(uuid.UUID(int=self._random.getrandbits(128), version=4))
        self._seq = 0
        self._accepted = 0

    def checkpoint(self, envelopes: int = 3, events: int = 8, parts: int = 1) -> list[bytes]:
        """The records of one checkpoint: its envelopes, then its deltas."""
        first = self.next_origin
        truth = Truth()
        deltas: dict[tuple[Any, ...], dict[str, Any]] = {}
        records = [self._envelope(events, truth, deltas) for _ in range(envelopes)]
        records += self._deltas(first, truth, deltas, parts)
        self.truth.add(truth)
        return records

    def records(self, checkpoints: int, **shape: int) -> Iterator[bytes]:
        for _ in range(checkpoints):
            yield from self.checkpoint(**shape)

    def _envelope(self, events: int, truth: Truth, deltas: dict[Any, Any]) -> bytes:
        origin, self.next_origin = self.next_origin, self.next_origin + 1
        roll = 1.0 if self._plain else self._random.random()
        if roll < 0.04:
            truth.counts["envelopes"] += 1
            truth.counts["duplicates"] += 1
            return self._record(origin, [], "duplicate", 0, 0)
        if roll < 0.08:
            truth.counts["envelopes"] += 1
            truth.counts["refused_envelopes"] += 1
            truth.counts["dead_letters"] += 1
            line = _refused("bad_header", "header is not JSON", '{"v":1,"sour')
            return self._record(
                origin, [line], "refused", 0, 0,
                reason="bad_header", source=str(uuid.UUID(int=0)), seq=0, project="",
            )  # fmt: skip
        lines: list[bytes] = []
        refused = 0
        for idx in range(1, events + 1):
            line = self._line(truth, deltas)
            refused += line.startswith(b'{"kind":"refused"')
            lines.append(line)
            truth.identities.add((self.partition, origin, idx))
        truth.counts["envelopes"] += 1
        truth.counts["events"] += events - refused
        truth.counts["refused"] += refused
        truth.counts["dead_letters"] += refused
        return self._record(origin, lines, "accepted", events - refused, refused)

    def _record(
        self, origin: int, lines: list[bytes], verdict: str, events: int, refused: int, **more: Any
    ) -> bytes:
        self._accepted += len(lines)
        header = {
            "v": 1, "type": "envelope", "log": self.log_id, "partition": self.partition,
            "offset": origin, "log_ts_us": NOW_US + origin, "verdict": verdict, "reason": "",
            "detail": "", "source": self._source, "seq": self._seq, "n": len(lines),
            "sent_us": NOW_US, "project": "shop", "environment": "prod", "service": "api",
            "sdk": "test", "accepted": self._accepted, "dropped": {"queue_full": 2},
            "last": False, "events": events, "refused": refused, "bytes": 100,
        }  # fmt: skip
        self._seq += 1
        return b"\n".join((orjson.dumps(header | more), *lines, b""))

    def _line(self, truth: Truth, deltas: dict[Any, Any]) -> bytes:
        kind = "call_end"
        if not self._plain:
            kind = self._random.choice(
                ("call_end", "call_end", "call_end", "call_begin", "cost", "metric", "annotation",
                 "experiment", "heartbeat", "refused")
            )  # fmt: skip
        if kind == "refused":
            return _refused("bad_value", "n is not a number", '{"kind":"call_end"\n"x"')
        truth.counts[kind] += 1
        started = NOW_US - self._random.randrange(30 * self._months) * 86_400_000_000
        started -= self._random.randrange(600_000_000)
        event: dict[str, Any] = {"kind": kind, "ts_us": started + 10}
        if kind == "call_end":
            self._call_end(event, started, truth, deltas)
        elif kind == "call_begin":
            event |= self._ids() | {"started_us": started, "operation": "chat", "name": "a\nb"}
        elif kind == "cost":
            pico = self._random.randrange(-(10**24), 10**24)
            event |= {"started_us": started, "cost_pico": str(pico), "source": "bill"}
            truth.cost_pico += pico
            delta = _delta(deltas, started, service="api")
            delta["cost_pico"] += pico
        elif kind == "metric":
            event |= {
                "name": "loss",
                "value": self._random.random(),
                "step": self._random.choice((None, 3)),
            }
        elif kind == "annotation":
            event |= {"text": "it\nworks", "metadata": {"kind": "call_end"}}
        elif kind == "experiment":
            event |= {"slug": "exp", "status": "running", "meta": {"usage": {"input": 1}}}
        else:
            event |= {"open": 3}
        return orjson.dumps(event)

    def _ids(self) -> dict[str, str]:
        bits = self._random.getrandbits
        return {"call_id": str(uuid.UUID(int=bits(128))), "trace_id": f"{bits(128):032x}"}

    def _call_end(
        self, event: dict[str, Any], started: int, truth: Truth, deltas: dict[Any, Any]
    ) -> None:
        pick = self._random
        operation = "chat" if self._plain else pick.choice((*MODEL_OPERATIONS, "program"))
        model_call = operation in MODEL_OPERATIONS
        status = "ok" if self._plain else pick.choice(("ok", "ok", "error"))
        event |= self._ids() | {
            "started_us": started, "operation": operation, "status": status,
            "parent_span_id": f"{pick.getrandbits(64):016x}", "name": "answer",
            "provider": "openai", "model": pick.choice(("gpt-4o", "gpt-4o-mini")),
            "phase": "serve", "program": "bot", "user": f"u{pick.randrange(1000)}",
            "session": f"s{pick.randrange(1000)}", "tags": {"team": "a", "region": "eu"},
            "finish_reason": "stop",
        }  # fmt: skip
        delta = _delta(
            deltas, started, service="api", provider="openai", model=event["model"],
            operation=operation, phase="serve", status=status,
        )  # fmt: skip
        truth.counts["model_calls" if model_call else "operations"] += 1
        delta["calls"] += 1
        delta["attempts"] += 1
        if status != "ok":
            truth.counts["failures"] += 1
            delta["failures"] += 1
        for name, known in (("latency", 0.9), ("ttft", 0.5)):
            if pick.random() < known:
                us = pick.randrange(1, 10**7)
                event[f"{name}_us"] = us
                getattr(truth, name)[bucket(us)] += 1
                delta[f"{name}_hist"][str(bucket(us))] += 1
                delta[f"{name}_count"] += 1
                if name == "latency":
                    delta["latency"].append(us)
        roll = 0.0 if self._plain else pick.random()
        usage: dict[str, int] | None = {
            "input": pick.randrange(9000),
            "output": pick.randrange(900),
        }
        if roll > 0.9:
            usage = None
            if roll > 0.95:  # the words of a usage, but not a usage
                event["inputs"] = {"usage": {"input": 5}, "kind": '{"kind":"cost"'}
        elif roll > 0.8:
            usage = {}
        if usage is not None:
            event["usage"] = usage
            truth.usage.update(usage)
            delta["usage"].update(usage)
        if not model_call:
            return
        if usage is None:
            truth.counts["usage_unknown"] += 1
            delta["usage_unknown"] += 1
        elif self._plain or pick.random() < 0.9:
            pico = pick.randrange(10**9) if pick.random() < 0.9 else pick.randrange(10**24)
            event |= {"cost_pico": str(pico), "cost_source": "genai-prices", "price_version": "1"}
            truth.cost_pico += pico
            delta["cost_pico"] += pico
        else:
            truth.counts["unpriced"] += 1
            delta["unpriced"] += 1

    def _deltas(
        self, first: int, truth: Truth, deltas: dict[Any, dict[str, Any]], parts: int
    ) -> list[bytes]:
        count = truth.counts
        controls = {
            "envelopes": count["envelopes"], "duplicates": count["duplicates"],
            "refused_envelopes": count["refused_envelopes"], "events": count["events"],
            "refused": count["refused"], "calls": count["model_calls"],
            "operations": count["operations"], "failures": count["failures"],
            "costs": count["cost"], "cost_pico": str(truth.cost_pico),
            "unpriced": count["unpriced"], "usage_unknown": count["usage_unknown"],
            "usage": dict(truth.usage),
        }  # fmt: skip
        lines = [orjson.dumps(_finished(delta)) for delta in deltas.values()]
        records = []
        for part in range(parts):
            header: dict[str, Any] = {
                "v": 1, "type": "deltas", "log": self.log_id, "partition": self.partition,
                "first": first, "last": self.next_origin - 1, "part": part, "parts": parts,
                "log_ts_us": NOW_US + self.next_origin - 1,
            }  # fmt: skip
            if part == 0:
                header["controls"] = controls
            records.append(b"\n".join((orjson.dumps(header), *lines[part::parts], b"")))
        return records


def _refused(reason: str, detail: str, line: str) -> bytes:
    return orjson.dumps({"kind": "refused", "reason": reason, "detail": detail, "line": line})


def _delta(deltas: dict[Any, dict[str, Any]], started: int, **dims: str) -> dict[str, Any]:
    minute = started // 60_000_000
    named = {"project": "shop", "environment": "prod"} | dims
    key = (minute, *(named.get(name, "") for name in DIMENSIONS))
    if key not in deltas:
        deltas[key] = {
            "minute": minute, **dict(zip(DIMENSIONS, key[1:], strict=True)), "calls": 0,
            "attempts": 0, "failures": 0, "usage": Counter(), "cost_pico": 0, "unpriced": 0,
            "usage_unknown": 0, "latency_count": 0, "latency": [], "latency_hist": Counter(),
            "ttft_count": 0, "ttft_hist": Counter(), "first_us": started, "last_us": started,
        }  # fmt: skip
    delta = deltas[key]
    delta["first_us"] = min(delta["first_us"], started)
    delta["last_us"] = max(delta["last_us"], started)
    return delta


def _finished(delta: dict[str, Any]) -> dict[str, Any]:
    """The delta's line; zero measures and empty maps are left out, as the contract allows."""
    latency = delta.pop("latency")
    delta["cost_pico"] = str(delta["cost_pico"])
    if latency:
        delta |= {"latency_sum_us": sum(latency), "latency_min_us": min(latency),
                  "latency_max_us": max(latency)}  # fmt: skip
    return {name: value for name, value in delta.items() if value not in (0, {}, "0")}
