"""A producer that is nothing but its envelopes: what it sent is known to the last token."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from callmeter.clock import SystemClock
from callmeter.ids import uuid7
from callmeter.replay.sending import send_all
from callmeter.schema.envelope import Header, encode
from callmeter.transports.factory import open_transport
from callmeter.transports.protocol import Sealed
from support.metering import line

CALLS = 3


@dataclass
class WireProducer:
    """Makes envelopes of three calls; ``fields`` lie over each call, ``sent`` is the next seq."""

    project: str = "shop"
    source: str = field(default_factory=uuid7)
    fields: dict[str, Any] = field(default_factory=dict)
    sent: int = 0
    accepted: int = 0

    def envelope(self, *more: dict[str, Any]) -> Sealed:
        """The next one: its calls, then ``more`` events."""
        now_us = time.time_ns() // 1000
        events = [self.call(now_us, index) for index in range(CALLS)]
        lines = [line(event) for event in (*events, *more)]
        self.accepted += len(lines)
        header = Header(
            source=self.source,
            seq=self.sent,
            n=len(lines),
            sent_us=now_us,
            project=self.project,
            accepted=self.accepted,
        )
        self.sent += 1
        return Sealed(self.source, header.seq, header.n, encode(header, lines))

    def call(self, now_us: int, index: int) -> dict[str, Any]:
        """A ``call_end`` of the next envelope."""
        return {
            "kind": "call_end",
            "ts_us": now_us,
            "call_id": str(uuid.UUID(int=uuid.UUID(self.source).int + 1000 * self.sent + index)),
            "trace_id": f"{self.sent + 1:032x}",
            "started_us": now_us - 60_000_000 * index,
            "operation": "chat",
            "status": "ok",
            "provider": "openai",
            "model": "gpt-4o-mini",
            "latency_us": 1_000 * (index + 1),
            "usage": {"input": 100, "output": 10},
            **self.fields,
        }


def send(url: str, envelopes: Iterable[Sealed]) -> None:
    """Returns when the log has them all."""
    assert not send_all(open_transport(url), envelopes, clock=SystemClock()).refused
