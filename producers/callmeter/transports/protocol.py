"""What every transport promises to the SDK's background thread."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class Outcome(StrEnum):
    """What became of an envelope that was handed over."""

    DELIVERED = "delivered"  # the log has it
    RETRY = "retry"  # not now: unreachable, 5xx, 429, time-out; it may or may not be in the log
    REFUSED = "refused"  # never: too large, 400, 403; sending it again would fail again


@dataclass(frozen=True, slots=True)
class Sealed:
    """One envelope ready to go. The bytes never change, however often it is sent."""

    source: str
    seq: int
    n: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Delivery:
    """The report on one envelope. ``partition`` and ``offset`` only when delivered to a log.

    ``retry_after_s`` is the server's wish (429, 503); ``error`` one line for people.
    """

    envelope: Sealed
    outcome: Outcome
    partition: int | None = None
    offset: int | None = None
    error: str | None = None
    retry_after_s: float | None = None


Report = Callable[[Delivery], None]


class Transport(Protocol):
    """Sends envelopes. All methods are called from one thread (the shipper's) only, and in order:
    ``open``, then any number of ``send`` and ``poll``, then ``close``.

    ``send`` takes an envelope and returns at once if it can: True means taken (exactly one
    ``Delivery`` will follow, through ``report``), False means the transport is full for now and
    nothing was taken. It never raises for a backend's sake. ``report`` may be called from any
    thread. ``poll(timeout_s)`` lets the transport work and returns when something was reported, or
    after the time-out. ``close(timeout_s)`` tries to finish what is in flight within the time and
    reports RETRY for the rest; it is idempotent. A transport is not usable after a fork: the child
    opens its own.
    """

    name: str

    def open(self, report: Report) -> None: ...

    def send(self, envelope: Sealed) -> bool: ...

    def poll(self, timeout_s: float) -> None: ...

    def close(self, timeout_s: float) -> None: ...
