"""How an attempt to deliver went."""

from __future__ import annotations

from typing import NamedTuple


class Sent(NamedTuple):
    """The receiver has it."""

    reason: str = ""


class Again(NamedTuple):
    """Not now. ``retry_after_s``: what the receiver asked for."""

    reason: str
    retry_after_s: float | None = None


class Refused(NamedTuple):
    """Never: trying again would not help."""

    reason: str


Outcome = Sent | Again | Refused
