"""What the SDK says about itself. Honest: success is never said when something was lost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class FlushResult:
    """What became of everything accepted before ``flush`` was called.

    Counts are events over the client's whole life, and ``accepted == delivered + pending +
    sum(dropped.values())``. ``pending`` is what no backend has acknowledged yet; ``spooled`` of
    those lie on disk. ``ok`` is true only if nothing is pending and nothing was dropped since the
    last result. ``error`` is the transport's last trouble in one line.
    """

    ok: bool
    accepted: int
    delivered: int
    pending: int
    spooled: int
    dropped: Mapping[str, int]
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Stats:
    """A client's counters at one moment.

    ``accepted == delivered + pending + sum(dropped.values())``. ``queued`` of the pending events
    are not in an envelope yet. ``bytes`` is the memory estimated for all that is pending.
    ``sampled_out`` were never accepted; ``open_calls`` have begun and not ended; ``contained``
    counts errors of the SDK itself that the host did not see. ``recovered`` and
    ``recovered_dropped`` are events that dead processes left in the spool and that this one
    delivered or dropped; they are in no other figure.
    """

    source: str
    accepted: int = 0
    delivered: int = 0
    pending: int = 0
    queued: int = 0
    spooled: int = 0
    dropped: Mapping[str, int] = field(default_factory=dict)
    envelopes: int = 0
    retries: int = 0
    bytes: int = 0
    open_calls: int = 0
    sampled_out: int = 0
    contained: int = 0
    recovered: int = 0
    recovered_dropped: Mapping[str, int] = field(default_factory=dict)
    error: str | None = None
