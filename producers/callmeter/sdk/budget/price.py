"""What a call of this process costs, as far as this process can know.

By the book of the installed genai-prices, as the meter does unless another book was published; an
explicit cost is taken as reported. Without genai-prices (``pip install 'callmeter[prices]'``) only
explicit costs count locally, and tokens always do.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from callmeter.errors import MissingExtraError
from callmeter.sdk.budget.scope import Facts
from callmeter.sdk.call import Call
from callmeter.sdk.containment import logger
from callmeter.sdk.encode import MODEL_OPERATIONS

if TYPE_CHECKING:
    from callmeter.pricing import Pricer


class Worth(NamedTuple):
    """A call that has ended. Unknown cost and unknown usage are 0 here: nothing is known to add."""

    pico: int
    tokens: int
    started_us: int
    user: str


@cache
def pricer() -> Pricer | None:
    """Reads the installed book once; None, with one line in the log, without genai-prices."""
    from callmeter.pricing import Pricer, installed_book

    try:
        return Pricer(installed_book())
    except MissingExtraError as exc:
        logger.warning("budget guards count explicit costs only: %s", exc)
        return None


def is_model_call(call: Call) -> bool:
    """Whether the call may carry cost: a model operation, and no wrapper of another."""
    wraps = call.extra is not None and "wraps" in call.extra
    return not wraps and (call.attribute("operation") or "chat") in MODEL_OPERATIONS


def worth_of(call: Call) -> Worth:
    """What a model call of this process is worth."""
    units = usage_of(call)
    started_us = call.started_ns // 1000
    user = call.attribute("user")
    extra = call.extra
    cost = None if extra is None else extra.get("cost")
    if cost is not None:
        pico = int(cost[0])
    else:
        pico = price(
            _text(call, "provider"),
            _text(call, "model"),
            started_us,
            units,
            tier=_text(call, "service_tier"),
            answered_by=_text(call, "response_model"),
        )
    tokens = 0 if units is None else units.get("input", 0) + units.get("output", 0)
    return Worth(pico, tokens, started_us, "" if user is None else str(user))


def price(
    provider: str,
    model: str,
    at_us: int,
    units: Mapping[str, int] | None,
    *,
    tier: str = "",
    answered_by: str = "",
) -> int:
    """pico-USD, 0 if it is not known: the model asked for is priced, else the one that answered."""
    book = pricer()
    if book is None or units is None:
        return 0
    batch = tier == "batch"
    for name in (model, answered_by):
        if name:
            priced = book.price(
                provider, name, at_us, units,
                service_tier=None if batch else tier or None, batch=batch,
            )  # fmt: skip
            if priced is not None:
                return priced.cost_pico
    return 0


def estimate_of(
    provider: str | None, model: str | None, at_us: int, input_tokens: int, max_output: int
) -> int:
    """pico-USD that a call may cost by its tokens, 0 if that is not known."""
    book = pricer()
    found = None
    if book is not None and model:
        found = book.estimate(provider or "", model, at_us, input_tokens, max_output)
    return found or 0


def usage_of(call: Call) -> Mapping[str, int] | None:
    """The units that the call was told; None if its usage is unknown."""
    units = call.units
    if not isinstance(units, tuple):
        known: Any = units
    else:
        first, second, more = units
        known = {"input": first, "output": second, **(more or {})}
    if known is None:
        return None
    return {name: n for name, n in known.items() if type(n) is int and n >= 0}


def facts_of(call: Call, settings: Any) -> Facts:
    """What budgets can ask of the call, as the meter will see it."""
    extra = call.extra
    own = (extra.get("tags") if extra is not None else None) or {}
    return Facts(
        settings.project,
        settings.environment,
        settings.service,
        _text(call, "provider"),
        _text(call, "model"),
        _text(call, "user"),
        _text(call, "session"),
        {**(settings.tags or {}), **call.labels.tags, **own},
    )


def _text(call: Call, name: str) -> str:
    value = call.attribute(name)
    return "" if value is None else str(value)
