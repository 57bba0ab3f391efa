"""Record type of the topic ``budget-status``: where an entity of a budget stands now.

The contract is docs/reference/formats.md, "Budget status".
"""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec import UNSET, Struct, UnsetType

from callmeter.errors import DataError

STATUS_VERSION = 1
BudgetState = Literal["ok", "warning", "exceeded", "disabled"]


class Previous(Struct, kw_only=True):
    """The window before the current one, as it stands now."""

    start_us: int
    spend_pico: str
    tokens: int


class BudgetStatus(Struct, kw_only=True, omit_defaults=True):
    """The current window of one entity.

    What counts against a limit is ``spend_pico - forgiven_pico`` (and tokens likewise): a manual
    reset forgives what was spent until then. ``end_us`` 0 is a window without an end. ``included``
    maps a partition of ``events`` to the last offset that is in these figures. Rates are pico-USD
    an hour.
    """

    v: int
    log: str
    budget: str
    version: int
    basis: int
    entity: str
    window: str
    state: BudgetState
    action: Literal["alert", "stop"]
    start_us: int
    end_us: int
    spend_pico: str
    tokens: int
    calls: int
    at_us: int
    included: dict[int, int]
    failures: int = 0
    unpriced: int = 0
    usage_unknown: int = 0
    limit_pico: str | UnsetType = UNSET
    limit_tokens: int | UnsetType = UNSET
    forgiven_pico: str = "0"
    forgiven_tokens: int = 0
    resets: int = 0
    open: int = 0
    exposure_pico: str = "0"
    burn_short_pico: str = "0"
    burn_long_pico: str = "0"
    exhausts_us: int | UnsetType = UNSET
    value: int | UnsetType = UNSET
    previous: Previous | UnsetType = UNSET
    late_pico: str = "0"
    openings: int = 0

    @property
    def stops(self) -> bool:
        """Whether calls are to be stopped: a limit is reached and the action says so."""
        return self.state == "exceeded" and self.action == "stop"


_decoder = msgspec.json.Decoder(BudgetStatus)


def status_key(budget: str, entity: str) -> bytes:
    """The key of an entity's status: ``budget|entity``. No budget's name has a ``|``."""
    return f"{budget}|{entity}".encode()


def decode_status(value: bytes) -> BudgetStatus:
    """A status from the topic. ``DataError`` if it is none, or of a newer format."""
    try:
        status = _decoder.decode(value)
    except msgspec.DecodeError as exc:
        raise DataError(f"a budget status cannot be read: {exc}") from exc
    if status.v > STATUS_VERSION:
        raise DataError(f"a budget status has format {status.v}: update callmeter")
    return status
