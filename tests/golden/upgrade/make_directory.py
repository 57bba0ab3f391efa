"""Writes the data directory of an older release, to be upgraded by a test.

Run with that release, from this directory:

    git archive 79b822f | tar -x -C OLD
    export PYTHONPATH=OLD/producers:OLD/processors:OLD/sinks
    python make_directory.py embedded-79b822f.tar.xz

Two producers: one closed, one that goes on; calls, a cost, a metric, a note and a bad line each.
The last envelope is in the log alone, as if the pipeline had been killed before it read it.
"""

from __future__ import annotations

import json
import sys
import tarfile
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

from callmeter.clock import SystemClock
from callmeter.embedded import LOG_FILE, Embedded
from callmeter.log.record import NewRecord
from callmeter.log.sqlite_log import SqliteLog
from callmeter.replay.sending import send_all
from callmeter.schema.envelope import Header, encode
from callmeter.transports.factory import open_transport
from callmeter.transports.protocol import Sealed

GOES_ON = "019a0000-0000-7000-8000-0000000000a1"
CLOSED = "019a0000-0000-7000-8000-0000000000a2"


def call(number: int, now_us: int) -> dict[str, Any]:
    return {
        "kind": "call_end",
        "ts_us": now_us,
        "call_id": str(uuid.UUID(int=(0x019A << 112) | (7 << 76) | (2 << 62) | number)),
        "trace_id": f"{number + 1:032x}",
        "started_us": now_us - number * 60_000_000,
        "operation": "chat",
        "status": "ok",
        "provider": "openai",
        "model": "gpt-4o-mini",
        "latency_us": 1000 + number,
        "usage": {"input": 100, "output": 10},
        "cost_pico": "1000000000000",
        "user": "someone",
    }


def envelope(source: str, seq: int, accepted: int, *, last: bool = False) -> Sealed:
    now_us = time.time_ns() // 1000
    first = 10 * seq + (1000 if source == CLOSED else 0)
    events = [call(first + at, now_us) for at in range(3)]
    events += [
        {"kind": "cost", "ts_us": now_us, "started_us": now_us, "cost_pico": "5", "source": "bill"},
        {"kind": "metric", "ts_us": now_us, "name": "loss", "value": 0.5},
        {"kind": "annotation", "ts_us": now_us, "text": "noted",
         "metadata": {"audit": {"user": "someone", "model": "gpt-4o-mini", "detail": {"n": 1}}}},
        {"kind": "call_end", "bad": True},
    ]  # fmt: skip
    lines = [json.dumps(event, separators=(",", ":")).encode() for event in events]
    header = Header(
        source=source, seq=seq, n=len(lines), sent_us=now_us, project="shop",
        accepted=accepted + len(lines), last=last,
    )  # fmt: skip
    return Sealed(source, seq, len(lines), encode(header, lines))


def main(archive: Path) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        home = Path(temporary) / "home"
        with Embedded(home) as pipeline:
            envelopes = [envelope(GOES_ON, 0, 0), envelope(GOES_ON, 1, 7)]
            envelopes += [envelope(CLOSED, 0, 0), envelope(CLOSED, 1, 7, last=True)]
            send_all(open_transport(pipeline.url), envelopes, clock=SystemClock())
        with SqliteLog(home / LOG_FILE) as log:
            unread = envelope(GOES_ON, 2, 14)
            log.append([NewRecord("events", unread.source.encode(), unread.data)])
        with tarfile.open(archive, "w:xz") as tar:
            tar.add(home, "home")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
