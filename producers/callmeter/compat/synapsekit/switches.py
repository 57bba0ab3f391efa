"""What may leave the process: the names of SynapseKit's observability settings over ``init``."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from callmeter.sdk import api
from callmeter.sdk.client import Client
from callmeter.settings import Settings

#: Its own: a program that seeds the global one gets the numbers it would get without us.
_random = random.Random()


class _Switches:
    """The two that callmeter's own settings do not have in this sense."""

    __slots__ = ("inputs", "outputs")

    def __init__(self) -> None:
        self.inputs = True
        self.outputs = True


SWITCHES = _Switches()


def configure(
    url: str | None = None,
    *,
    trace_llm_inputs: bool = True,
    trace_llm_outputs: bool = True,
    sample_rate: float = 1.0,
    redact_keys: Sequence[str] = (),
    **settings: Any,
) -> Client:
    """``callmeter.init`` with SynapseKit's switches. Returns the client.

    ``trace_llm_inputs=False``: no prompt is kept anywhere, whatever a wrapper says; the same for
    outputs. ``sample_rate`` is the share of traces that are recorded, ``redact_keys`` are keys
    whose values become ``[REDACTED]``. Everything else is a setting of ``callmeter.init``.
    """
    SWITCHES.inputs, SWITCHES.outputs = trace_llm_inputs, trace_llm_outputs
    return api.init(url, sample_rate=sample_rate, redact_keys=redact_keys, **settings)


def settings() -> Settings:
    """Those of the default client; the defaults before ``init``."""
    client = api.default_client()
    return Settings() if client is None else client.settings


def hidden_keys() -> frozenset[str]:
    """Keys to redact, in lower case."""
    return frozenset(key.lower() for key in settings().redact_keys)


def root_is_kept() -> bool:
    """The decision for a trace that begins here and that no client decides about."""
    rate = settings().sample_rate
    return rate >= 1.0 or _random.random() < rate
