"""What a call of a model used: read from its reply, else from the counters that the model keeps.

SynapseKit's models count tokens over all their calls (``tokens_used``), so a call's share is what
the counters grew by since the last share was taken. A model that counts in its last step, as they
do, gets every call's own figures, calls at the same time included; one that goes on waiting after
it has counted may see two such calls share theirs, the sum staying exact.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

from callmeter.sdk.usage import read_reply
from callmeter.sdk.usage.fields import count, first, text

Tokens = tuple[int, int]

#: Classes of models say whose they are: the beginning of their name → provider.
_PROVIDERS = {
    "anthropic": "anthropic",
    "azure": "azure",
    "bedrock": "aws",
    "cohere": "cohere",
    "deepseek": "deepseek",
    "gemini": "google",
    "google": "google",
    "groq": "groq",
    "mistral": "mistral",
    "ollama": "ollama",
    "openai": "openai",
    "openrouter": "openrouter",
}


class Meter:
    """The shares of one model's counters."""

    def __init__(self, llm: Any) -> None:
        self._llm: Callable[[], Any] = _reference(llm)
        self._taken: Tokens = (0, 0)
        self._running = 0

    def enter(self) -> None:
        """A call begins. What was used while none ran belongs to nobody here."""
        if not self._running:
            self._taken = self._counted() or (0, 0)
        self._running += 1

    def leave(self) -> dict[str, int] | None:
        """A call has ended: its share, or None if nothing was counted."""
        self._running -= 1
        counted = self._counted()
        if counted is None:
            return None
        before, self._taken = self._taken, counted
        if counted[0] < before[0] or counted[1] < before[1]:  # somebody has reset them
            before = (0, 0)
        share = {"input": counted[0] - before[0], "output": counted[1] - before[1]}
        return share if any(share.values()) else None

    def _counted(self) -> Tokens | None:
        llm = self._llm()
        counters = first(llm, "tokens_used")
        tokens_in = count(first(counters, "input", "prompt", "input_tokens", "prompt_tokens"))
        tokens_out = count(first(counters, "output", "completion", "output_tokens"))
        if tokens_in is None and tokens_out is None:
            return None
        return tokens_in or 0, tokens_out or 0


_meters: weakref.WeakKeyDictionary[Any, Meter] = weakref.WeakKeyDictionary()


def meter_of(llm: Any) -> Meter:
    """The one meter of a model, however many wrappers there are around it."""
    try:
        meter = _meters.get(llm)
        if meter is None:
            meter = _meters.setdefault(llm, Meter(llm))
    except TypeError:  # neither hashable nor weakly referable: each call has a meter of its own
        return Meter(llm)
    return meter


def _reference(llm: Any) -> Callable[[], Any]:
    try:
        return weakref.ref(llm)
    except TypeError:
        return lambda: llm


def usage_in(reply: Any) -> dict[str, int] | None:
    """The usage that a reply itself says; None for plain text."""
    return None if isinstance(reply, str) else read_reply(reply).usage


def model_of(llm: Any) -> str:
    """The model's name, as its configuration or the object itself says."""
    config = getattr(llm, "config", None)
    found = text(first(config, "model", "model_name")) or text(first(llm, "model", "model_name"))
    return found or "unknown"


def provider_of(llm: Any) -> str:
    """The provider, as configuration, object or the name of its class says; ``unknown`` if none
    does.
    """
    config = getattr(llm, "config", None)
    said = text(first(config, "provider")) or text(first(llm, "provider"))
    if said:
        return said
    name = type(llm).__name__.lower()
    return next((p for prefix, p in _PROVIDERS.items() if name.startswith(prefix)), "unknown")
