"""Record type of the topic ``alerts``, and the ids that make an alert said once.

The contract is docs/reference/formats.md, "Alerts".
"""

from __future__ import annotations

import hashlib
from enum import StrEnum
from typing import Literal

import msgspec
from msgspec import UNSET, Struct, UnsetType

ALERT_VERSION = 1


class AlertKind(StrEnum):
    """What an alert says."""

    THRESHOLD = "threshold"  # a budget's spend has reached a threshold
    WITHDRAWN = "withdrawn"  # … and corrections brought it below again; corrects names it
    MOVED = "moved"  # the closed window of a crossing has changed; corrects names it
    SLO = "slo"  # an objective is broken
    SLO_MET = "slo_met"  # … and met again; corrects names it
    STUCK = "stuck"  # a call has been open for longer than its limit
    ORPHANED = "orphaned"  # a call is open and its source is silent or closed
    ENDED = "ended"  # a stuck or orphaned call has ended after all; corrects names it
    GAP = "gap"  # envelopes of a source are missing
    GAP_CLOSED = "gap_closed"  # … and have come after all; corrects names it
    UNCLEAN_END = "unclean_end"  # a source is silent and has not closed
    RESUMED = "resumed"  # … and speaks again; corrects names it
    CLOCK_SKEW = "clock_skew"  # a source's clock is not the log's; nothing is shifted
    CLOCK_AGREES = "clock_agrees"  # … and agrees again; corrects names it


class Alert(Struct, kw_only=True, omit_defaults=True):
    """One alert. Every id is said once; a reader that sees one again has read a record twice.

    ``value`` and ``limit`` are integers in the measure's unit: pico-USD, tokens, parts per million,
    microseconds, envelopes.
    """

    v: int
    id: str
    kind: str
    rule: str
    severity: Literal["info", "warning", "critical"]
    at_us: int
    message: str
    log: str
    project: str = ""
    version: int = 0
    entity: str = ""
    window: str = ""
    start_us: int | UnsetType = UNSET
    end_us: int | UnsetType = UNSET
    measure: str = ""
    threshold: str = ""
    ordinal: int = 0
    value: str = ""
    limit: str = ""
    late: bool = False
    corrects: str = ""
    source: str = ""
    call_id: str = ""
    trace_id: str = ""
    provider: str = ""
    model: str = ""
    program: str = ""
    user: str = ""
    session: str = ""
    started_us: int | UnsetType = UNSET
    first_seq: int | UnsetType = UNSET
    last_seq: int | UnsetType = UNSET


_decoder = msgspec.json.Decoder(Alert)


def alert_id(*parts: str | int) -> str:
    """32 hex digits of SHA-256 over the length-prefixed parts: the same for the same parts."""
    digest = hashlib.sha256()
    for part in parts:
        data = str(part).encode()
        digest.update(len(data).to_bytes(4, "big"))
        digest.update(data)
    return digest.hexdigest()[:32]


def threshold_id(
    budget: str,
    terms: int,
    entity: str,
    start_us: int,
    *,
    measure: str,
    threshold: str,
    ordinal: int,
) -> str:
    """The id of a crossing. ``ordinal`` counts crossings of one threshold in one window, from 0."""
    return alert_id("threshold", budget, terms, entity, start_us, measure, threshold, ordinal)


def encode_alert(alert: Alert) -> bytes:
    """The alert as it stands in the topic; its key is the rule."""
    return msgspec.json.encode(alert)


def decode_alert(value: bytes) -> Alert:
    """An alert from the topic. ``msgspec.DecodeError`` if it is none."""
    return _decoder.decode(value)
