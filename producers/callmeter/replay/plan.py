"""What a replay will send: the sources, how many events, and the envelopes themselves."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import orjson

from callmeter._version import __version__
from callmeter.clock import Clock
from callmeter.ids import uuid8
from callmeter.replay import azure_llm
from callmeter.replay.cutting import Origin, cut
from callmeter.replay.recorded import recorded_envelopes
from callmeter.transports.protocol import Sealed

#: Envelopes of a trace are small enough that a progress bar moves and large enough to be cheap.
TRACE_EVENTS_PER_ENVELOPE = 200


@dataclass(frozen=True, slots=True)
class Plan:
    """``source`` is the trace's own, or None where the file names many; ``events`` likewise."""

    envelopes: Callable[[], Iterable[Sealed]]
    source: str | None
    envelope_count: int | None
    events: int | None


def plan_trace(
    path: Path, *, provider: str, model: str, origin: dict[str, str], again: bool, clock: Clock
) -> Plan:
    """The plan of an Azure LLM trace: same file and options, same source; ``again``: a new one.

    Raises ``DataError`` if the file cannot be read or has other columns; nothing is sent then.
    """
    trace = azure_llm.inspect(path)
    salt = secrets.token_hex(8) if again else ""
    options = orjson.dumps(
        {"format": "azure-llm", "provider": provider, "model": model, "salt": salt, **origin},
        option=orjson.OPT_SORT_KEYS,
    )
    source = uuid8(bytes.fromhex(trace.digest), options)
    head = Origin(source=source, sdk=f"callmeter-replay/{__version__}", **origin)

    def envelopes() -> Iterator[Sealed]:
        lines = azure_llm.event_lines(trace, provider=provider, model=model, salt=salt)
        return cut(lines, head, clock, max_events=TRACE_EVENTS_PER_ENVELOPE)

    # Event lines of a trace are far below the byte limit, so the line count alone decides the cut.
    count = -(-trace.lines // TRACE_EVENTS_PER_ENVELOPE)
    return Plan(envelopes, source, count, trace.lines)


def plan_recorded(path: Path) -> Plan:
    """The plan of a ``.jsonl`` file of envelopes: read once to check it, sent as it is."""
    count = events = 0
    for envelope in recorded_envelopes(path):
        count += 1
        events += envelope.n
    return Plan(lambda: recorded_envelopes(path), None, count, events)


def paced(
    envelopes: Iterable[Sealed], speed: float, sleep: Callable[[float], None] = time.sleep
) -> Iterator[Sealed]:
    """Hold each envelope back until its first event's time has come, ``speed`` times as fast."""
    began_s = time.monotonic()
    first_us: int | None = None
    for envelope in envelopes:
        line = envelope.data.split(b"\n", 2)[1]
        at_us = int(orjson.loads(line)["ts_us"])
        first_us = at_us if first_us is None else first_us
        wait_s = (at_us - first_us) / 1e6 / speed - (time.monotonic() - began_s)
        if wait_s > 0:
            sleep(wait_s)
        yield envelope
