"""What a run's figures are folded from: the same records in the process and out of the store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

#: The only code that is no failure.
OK = 200
#: The code of a request that raised.
RAISED = 999


@dataclass(frozen=True, slots=True)
class Tokens:
    """Token counts; what is unknown is 0 here, and unknown in the event behind it."""

    prompt: int = 0
    completion: int = 0
    total: int = 0

    def __bool__(self) -> bool:
        return self.prompt > 0 or self.completion > 0 or self.total > 0

    def plus(self, other: Tokens) -> Tokens:
        """Both together."""
        return Tokens(
            self.prompt + other.prompt,
            self.completion + other.completion,
            self.total + other.total,
        )


NO_TOKENS = Tokens()


@dataclass(frozen=True, slots=True)
class Identity:
    """What a model is, as its first request in a run said; later ones change nothing."""

    model_type: str = "unknown"
    model_url: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Request:
    """One request to a model, retries each for itself. ``cost_pico`` None adds nothing."""

    model: str
    latency_us: int = 0
    code: int = OK
    retry: bool = False
    tokens: Tokens = NO_TOKENS
    cost_pico: int | None = None

    @property
    def failed(self) -> bool:
        """Any code other than 200 is a failure."""
        return self.code != OK


@dataclass(frozen=True, slots=True)
class Execution:
    """One execution of a node; tokens and cost are those of the requests directly within."""

    node: str
    node_type: str
    model: str | None = None
    latency_us: int = 0
    failed: bool = False
    tokens: Tokens = NO_TOKENS
    cost_pico: int = 0
