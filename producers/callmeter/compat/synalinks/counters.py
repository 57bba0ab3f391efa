"""The counters that Synalinks' users read on programs and models themselves.

``program.inference_cumulated_invocations``, ``lm.cumulated_cost`` and so on, over callmeter's
totals. Plain descriptors without a setter: where an engine keeps a counter of its own on the
object, that one is read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from callmeter.compat.synalinks.scope import PHASES
from callmeter.compat.synalinks.totals import totals_of
from callmeter.money import from_pico

#: The counter's name on the object → (name in the totals, what one unit of the total is).
_COUNTERS: dict[str, tuple[str, str]] = {
    "invocations": ("invocations", "count"),
    "invocation_elapsed_s": ("invocation_elapsed_ns", "ns"),
    "cost": ("cost_pico", "pico"),
    **{
        name: (name, "count")
        for name in (
            "calls", "prompt_tokens", "completion_tokens", "tokens", "cached_tokens",
            "cache_creation_tokens", "reasoning_tokens", "vectors", "failed_calls",
            "fallback_activations", "cache_hits", "streaming_calls",
        )
    },
    "elapsed_s": ("elapsed_ns", "ns"),
    "streaming_ttft_s": ("streaming_ttft_ns", "ns"),
    "streaming_ttlt_s": ("streaming_ttlt_ns", "ns"),
}  # fmt: skip


def as_told(amount: int, unit: str) -> int | float:
    """A total in the unit its readers know: seconds and USD are floats, at this last step."""
    if unit == "ns":
        return amount / 1e9
    return float(from_pico(amount)) if unit == "pico" else amount


@dataclass(frozen=True, slots=True)
class Counter:
    """One counter of one phase; ``phase`` None is all time."""

    phase: str | None
    name: str
    unit: str

    def __get__(self, module: Any, owner: type | None = None) -> Any:
        if module is None:
            return self
        return as_told(totals_of(module).read(self.phase, self.name), self.unit)


def counters() -> dict[str, Counter]:
    """All counters by their names on an object."""
    return {
        f"{f'{phase}_' if phase else ''}cumulated_{shown}": Counter(phase, name, unit)
        for phase in (None, *PHASES)
        for shown, (name, unit) in _COUNTERS.items()
    }
