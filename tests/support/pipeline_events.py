"""Events of live traffic for the whole pipeline, and the truth about them.

Prices are those published for gpt-4o-mini: 0.15 and 0.60 USD per million tokens, 150,000 and
600,000 pico-USD a token. Nothing here asks the meter what anything costs.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import orjson

from callmeter.ids import uuid7
from support.metered import MODEL_OPERATIONS, Truth

IN_PICO, OUT_PICO = 150_000, 600_000
DAY_US = 86_400_000_000
PROJECT = "chaos"
USERS, SESSIONS = 20, 40
SLOW_US = 5_000_000
Event = dict[str, Any]


class Spent(NamedTuple):
    """What one event adds to budgets."""

    started_us: int
    service: str
    model: str
    user: str
    session: str
    pico: int
    tokens: int
    calls: int


@dataclass
class Sent:
    """Everything that was sent, each event once."""

    truth: Truth = field(default_factory=Truth)
    spent: list[Spent] = field(default_factory=list)
    late: int = 0  # events


def bucket_of(us: int) -> int:
    """The histogram's bucket by its definition in integers: 2**b <= us**32 < 2**(b + 1)."""
    return int(max(us, 1) ** 32).bit_length() - 1


class Events:
    """Makes the lines of envelopes by a seed, and adds them to ``sent``."""

    def __init__(self, seed: int, sent: Sent) -> None:
        self._random = random.Random(seed)
        self._sent = sent

    def lines(self, now_us: int, service: str, *, late: bool = False) -> list[bytes]:
        """One envelope's lines; with ``late`` the calls began hours to days ago."""
        pick = self._random
        lines = []
        for _ in range(pick.randrange(2, 14)):
            started_us = now_us - pick.randrange(3_000_000)
            if late:
                started_us -= pick.randrange(3_600_000_000, 5 * DAY_US)
                self._sent.late += 1
            lines.append(self._line(started_us, service))
        return lines

    def _line(self, started_us: int, service: str) -> bytes:
        pick, count = self._random, self._sent.truth.counts
        roll = 0.0 if service in ("failing", "slow") else pick.random()
        if roll > 0.97:
            count["refused"] += 1
            count["dead_letters"] += 1
            return b'{"kind":"call_end","ts_us":1}'
        if roll > 0.94:
            count["annotation"] += 1
            event: Event = {"kind": "annotation", "ts_us": started_us, "text": "so it goes\n"}
        elif roll > 0.91:
            count["metric"] += 1
            value = pick.random()
            event = {"kind": "metric", "ts_us": started_us, "name": "loss", "value": value}
        elif roll > 0.86:
            event = self.cost(started_us, pick.randrange(1, 10**9), service)
        else:
            event = self._call(started_us, service)
        count["events"] += 1
        return orjson.dumps(event)

    def cost(self, started_us: int, pico: int, service: str, **dims: str) -> Event:
        """Money apart from its call."""
        self._sent.truth.counts["cost"] += 1
        self._sent.truth.cost_pico += pico
        self._sent.spent.append(Spent(started_us, service, "", "", "", pico, 0, 0))
        return {
            "kind": "cost", "ts_us": started_us, "started_us": started_us,
            "cost_pico": str(pico), "source": "bill",
        } | dims  # fmt: skip

    def program_end(self, begin: Event) -> Event:
        """The end of a call that was begun: an operation without usage or latency."""
        count = self._sent.truth.counts
        for kind in ("call_end", "operations", "events"):
            count[kind] += 1
        keys = ("ts_us", "started_us", "call_id", "trace_id")
        return {"kind": "call_end", "operation": "program", "status": "ok"} | {
            key: begin[key] for key in keys
        }

    def _call(self, started_us: int, service: str) -> Event:
        pick, truth = self._random, self._sent.truth
        is_model = service in ("failing", "slow") or pick.random() < 0.93
        failed = service == "failing" or (service != "slow" and pick.random() < 0.1)
        event: Event = {
            "kind": "call_end", "ts_us": started_us + 10, "started_us": started_us,
            "call_id": uuid7(), "trace_id": f"{pick.getrandbits(128):032x}",
            "operation": pick.choice(MODEL_OPERATIONS) if is_model else "program",
            "status": "error" if failed else "ok", "provider": "openai", "model": "gpt-4o-mini",
            "user": f"u{pick.randrange(USERS)}", "session": f"s{pick.randrange(SESSIONS)}",
            "phase": pick.choice(("", "eval")), "attempts": pick.randrange(1, 4),
        }  # fmt: skip
        truth.counts["call_end"] += 1
        truth.counts["model_calls" if is_model else "operations"] += 1
        truth.counts["failures"] += failed
        event["latency_us"] = SLOW_US if service == "slow" else pick.randrange(1, 10**6)
        truth.latency[bucket_of(event["latency_us"])] += 1
        if pick.random() < 0.5:
            event["ttft_us"] = pick.randrange(1, 10**6)
            truth.ttft[bucket_of(event["ttft_us"])] += 1
        pico, tokens = self._usage(event) if is_model else (0, 0)
        self._sent.spent.append(
            Spent(
                started_us, service, event["model"], event["user"], event["session"], pico, tokens,
                int(is_model),
            )
        )  # fmt: skip
        return event

    def _usage(self, event: Event) -> tuple[int, int]:
        """Gives a model call its usage and price: pico-USD and tokens."""
        pick, truth = self._random, self._sent.truth
        roll = pick.random()
        if roll > 0.95:
            truth.counts["usage_unknown"] += 1
            return 0, 0
        usage = {"input": pick.randrange(1, 9000), "output": pick.randrange(1, 900)}
        event["usage"] = usage
        truth.usage.update(usage)
        pico = usage["input"] * IN_PICO + usage["output"] * OUT_PICO
        if roll > 0.90:
            event |= {"provider": "acme", "model": "nobody-knows-this-model"}
            truth.counts["unpriced"] += 1
            pico = 0
        elif roll > 0.80:
            pico = pick.randrange(10**10)
            event |= {"cost_pico": str(pico), "cost_source": "provider"}
        truth.cost_pico += pico
        return pico, usage["input"] + usage["output"]


def by_budget(spent: list[Spent], of: Any) -> dict[Any, list[int]]:
    """Pico-USD, tokens and calls by whatever ``of`` says of an event; None leaves it out."""
    sums: dict[Any, list[int]] = defaultdict(lambda: [0, 0, 0])
    for each in spent:
        key = of(each)
        if key is not None:
            total = sums[key]
            total[0] += each.pico
            total[1] += each.tokens
            total[2] += each.calls
    return sums


def counted(sent: Sent, records: int, distinct: int) -> Truth:
    """The truth with what the log itself says: how many envelopes it holds, and how many twice."""
    truth = Truth()
    truth.add(sent.truth)
    truth.counts = Counter(truth.counts)
    truth.counts["envelopes"] = records
    truth.counts["duplicates"] = records - distinct
    return truth
