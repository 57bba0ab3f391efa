"""``CostTracker``: what a model's calls cost, one record a call, and by scope.

Sums are kept in pico-USD; floats are made at the very last step, as the document has them.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from callmeter.compat.synapsekit.invocation import Invocation
from callmeter.compat.synapsekit.prices import require_prices
from callmeter.compat.synapsekit.switches import SWITCHES
from callmeter.compat.synapsekit.wrapping import LLMWrapper
from callmeter.money import from_pico

PREVIEW_CHARS = 100
ROOT = "(root)"


@dataclass
class CostRecord:
    """One call. Costs are USD; those of a model without a known price are 0.0, which the stored
    record calls ``unpriced``.
    """

    model: str
    provider: str
    input_tokens: int
    output_tokens: int
    input_cost_usd: float
    output_cost_usd: float
    total_cost_usd: float
    timestamp: datetime
    prompt_preview: str  # first 100 chars
    scope: str = ROOT


@dataclass
class ScopeTotal:
    """What the calls of one scope come to."""

    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_pico: int = 0

    @property
    def cost_usd(self) -> float:
        """USD."""
        return _usd(self.cost_pico)


class CostTracker(LLMWrapper):
    """Keeps a ``CostRecord`` of every answered call. ``currency`` is for display only: costs are
    USD whatever it says.

    >>> tracker = CostTracker(llm)
    >>> await tracker.generate("Short prompt")
    >>> print(f"Total cost: ${tracker.cost_so_far:.4f}")
    """

    def __init__(self, llm: Any, currency: str = "USD") -> None:
        super().__init__(llm)
        require_prices()
        self.currency = currency
        self._lock = threading.Lock()
        self._records: list[CostRecord] = []
        self._totals: dict[str, ScopeTotal] = {}
        self._scope: ContextVar[str] = ContextVar("callmeter_cost_scope", default="")

    @property
    def cost_so_far(self) -> float:
        """USD of all records, summed exactly."""
        with self._lock:
            return _usd(sum(total.cost_pico for total in self._totals.values()))

    @property
    def records(self) -> list[CostRecord]:
        """A record a call, in the order in which they were answered."""
        with self._lock:
            return list(self._records)

    @property
    def scopes(self) -> dict[str, ScopeTotal]:
        """Totals by the path of scopes, ``a/b``; of calls outside of any, ``(root)``."""
        with self._lock:
            return {
                path: ScopeTotal(t.calls, t.input_tokens, t.output_tokens, t.cost_pico)
                for path, t in self._totals.items()
            }

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """Calls made inside, in this task or thread, belong to this scope; scopes nest."""
        around = self._scope.get()
        token = self._scope.set(f"{around}/{name}" if around else name)
        try:
            yield
        finally:
            self._scope.reset(token)

    def reset(self) -> None:
        """Cost to zero, records and scopes forgotten."""
        with self._lock:
            self._records.clear()
            self._totals.clear()

    def before(self, one: Invocation) -> None:
        """The stored record says the scope too."""
        path = self._scope.get()
        if path:
            one.attributes["scope"] = path

    def after(self, one: Invocation, answer: Any) -> None:
        """Keep the record of an answered call."""
        usage, parts = one.usage or {}, one.cost
        input_pico = 0 if parts is None else parts.input_pico + parts.other_pico
        output_pico = 0 if parts is None else parts.output_pico
        path = one.attributes.get("scope", ROOT)
        record = CostRecord(
            model=one.model,
            provider=one.provider,
            input_tokens=usage.get("input", 0),
            output_tokens=usage.get("output", 0),
            input_cost_usd=_usd(input_pico),
            output_cost_usd=_usd(output_pico),
            total_cost_usd=_usd(input_pico + output_pico),
            timestamp=one.started,
            prompt_preview=str(one.prompt)[:PREVIEW_CHARS] if SWITCHES.inputs else "",
            scope=path,
        )
        with self._lock:
            self._records.append(record)
            total = self._totals.setdefault(path, ScopeTotal())
            total.calls += 1
            total.input_tokens += record.input_tokens
            total.output_tokens += record.output_tokens
            total.cost_pico += input_pico + output_pico


def _usd(pico: int) -> float:
    return float(from_pico(pico))
