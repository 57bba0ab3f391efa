"""What a call is worth: explicit, unknown, priced or unpriced (docs/reference/formats.md).

Unknown is unknown: a call without usage or without a known price adds nothing to sums and is
counted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from msgspec import UNSET

from callmeter.schema.events import CallEnd

#: The ``cost_source`` of an explicit cost whose producer named none.
REPORTED = "reported"
BATCH = "batch"


class Priced(Protocol):
    """A price applied: integer pico-USD, where the price is from, and the version of the book."""

    @property
    def cost_pico(self) -> int: ...
    @property
    def source(self) -> str: ...
    @property
    def version(self) -> str: ...


class Quote(Protocol):
    """What calls of one model cost from ``start_us`` to before ``end_us`` if their usage names just
    the units asked for, in that order: ``cost_of(*counts)`` in pico-USD, None if unpriced.
    """

    @property
    def start_us(self) -> int: ...
    @property
    def end_us(self) -> int: ...
    @property
    def cost_of(self) -> Callable[..., int | None]: ...
    @property
    def source(self) -> str: ...
    @property
    def version(self) -> str: ...


class Pricer(Protocol):
    """Prices calls; ``callmeter.pricing.Pricer`` is one.

    On the meter's thread. None means no known price. Does no I/O and never raises on a producer's
    values. The answer may change when another book comes into force (then ``quote`` becomes another
    method, and earlier quotes are forgotten): what was committed stays as it was priced.
    """

    def price(
        self,
        provider: str,
        model: str,
        at_us: int,
        usage: Mapping[str, int],
        *,
        service_tier: str | None = None,
        batch: bool = False,
    ) -> Priced | None: ...

    def quote(self, provider: str, model: str, at_us: int, units: tuple[str, ...]) -> Quote | None:
        """What ``price`` would say of all usages of these units without a service tier; or None,
        and ``price`` is asked for each call.
        """


def settle(call: CallEnd, pricer: Pricer) -> int | None:
    """Fill in cost, source and price version of a model call; its pico-USD, None if unknown.

    The model asked for is priced; if that is unknown, the model that answered (an Azure deployment
    has a name of its own). The time of the price is the call's start.
    """
    if call.cost_pico is not UNSET:
        if not call.cost_source:
            call.cost_source = REPORTED
        return int(call.cost_pico)
    usage = call.usage
    if usage is UNSET:
        return None
    if call.service_tier:
        priced = _price_tier(call, call.model, usage, pricer)
    else:
        priced = pricer.price(call.provider, call.model, call.started_us, usage)
    if priced is None and call.response_model and call.response_model != call.model:
        priced = _price_tier(call, call.response_model, usage, pricer)
    if priced is None:
        return None
    pico = priced.cost_pico
    call.cost_pico = str(pico)
    call.cost_source = priced.source
    call.price_version = priced.version
    return pico


def _price_tier(
    call: CallEnd, model: str, usage: Mapping[str, int], pricer: Pricer
) -> Priced | None:
    batch = call.service_tier == BATCH
    tier = None if batch else call.service_tier or None
    return pricer.price(
        call.provider, model, call.started_us, usage, service_tier=tier, batch=batch
    )
