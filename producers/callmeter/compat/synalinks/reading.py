"""What a model's call used and cost, from the figures that the engine leaves on the model.

Synalinks' models keep ``last_call_prompt_tokens``, ``last_call_cost`` and so on of their latest
call. They are read in the step in which the provider's reply was taken, before anything else runs,
so calls of one model at the same time do not get each other's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from callmeter.money import float_to_pico, to_pico
from callmeter.sdk.containment import CONTAINMENT
from callmeter.sdk.usage.fields import count

#: Our unit → the engine's counter.
_DETAILS = {
    "cache_read": "last_call_cached_tokens",
    "cache_write": "last_call_cache_creation_tokens",
    "reasoning": "last_call_reasoning_tokens",
}
COST = "last_call_cost"


@dataclass(frozen=True, slots=True)
class Reading:
    """``usage`` None is unknown; so is ``cost_pico``. Details of 0 are left out."""

    usage: Mapping[str, int] | None = None
    cost_pico: int | None = None
    vectors: int | None = None
    finish_reason: str | None = None
    #: The cost as the engine wrote it, to put it back.
    told_cost: Any = None

    @property
    def total_tokens(self) -> int:
        """Tokens in and out; what is cached or reasoning is a part of them."""
        usage = self.usage or {}
        return usage.get("input", 0) + usage.get("output", 0)


def forget_cost(model: Any) -> None:
    """Before a call and once its cost is read: what is there later was reported by a later call.

    An engine writes a cost only when the provider reports one, so an old one would count again.
    """
    if getattr(model, COST, None) is not None:
        model.last_call_cost = None


def read_model(model: Any) -> Reading:
    """What the model's latest call used and cost."""
    tokens_in = count(getattr(model, "last_call_prompt_tokens", None))
    tokens_out = count(getattr(model, "last_call_completion_tokens", None)) or 0
    usage: dict[str, int] | None = None
    if tokens_in is not None and (tokens_in or tokens_out):  # 0 and 0 is how "no usage" is written
        usage = {"input": tokens_in, "output": tokens_out}
        for unit, name in _DETAILS.items():
            if n := count(getattr(model, name, None)):
                usage[unit] = n
    reason = getattr(model, "last_call_finish_reason", None)
    return Reading(
        usage=usage,
        cost_pico=cost_of(getattr(model, COST, None)),
        vectors=count(getattr(model, "last_call_vectors", None)),
        finish_reason=str(reason) if reason else None,
        told_cost=getattr(model, COST, None),
    )


def cost_of(usd: Any) -> int | None:
    """Pico-USD of what the engine says, a float mostly; None if it says nothing."""
    if usd is None or isinstance(usd, bool):
        return None
    try:
        return float_to_pico(usd) if isinstance(usd, float) else to_pico(usd)
    except (TypeError, ValueError) as exc:
        CONTAINMENT.caught("a model's cost", exc)
        return None
