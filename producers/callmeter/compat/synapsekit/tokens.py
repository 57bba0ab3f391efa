"""``TokenTracer``: the tokens of a session, and whether its answers get better."""

from __future__ import annotations

import threading
from typing import Any

from callmeter.compat.synapsekit.invocation import Invocation
from callmeter.compat.synapsekit.wrapping import LLMWrapper

#: Means of the two halves of a window differ by less: no trend.
TREND_THRESHOLD = 0.03


class TokenTracer(LLMWrapper):
    """Counts the tokens of a model's calls. ``enabled=False`` counts nothing and asks as before.

    ``quality_window`` is how many of the latest scores ``quality_trend`` looks at.

    >>> tracer = TokenTracer(llm)
    >>> answer = await tracer.generate("Explain RAG in one sentence.")
    >>> tracer.tokens_used
    {'input': 12, 'output': 38, 'total': 50}
    """

    def __init__(self, llm: Any, enabled: bool = True, *, quality_window: int = 5) -> None:
        super().__init__(llm)
        self.enabled = enabled
        self.quality_window = max(2, quality_window)
        self._lock = threading.Lock()
        self._input = self._output = 0
        self._scores: list[float] = []

    @property
    def tokens_used(self) -> dict[str, int]:
        """``input``, ``output`` and ``total`` since the beginning or the last ``reset``."""
        with self._lock:
            tokens_in, tokens_out = self._input, self._output
        return {"input": tokens_in, "output": tokens_out, "total": tokens_in + tokens_out}

    def reset(self) -> None:
        """Tokens to zero, scores forgotten."""
        with self._lock:
            self._input = self._output = 0
            self._scores.clear()

    def after(self, one: Invocation, answer: Any) -> None:
        """Add what the call used."""
        if self.enabled and one.usage is not None:
            with self._lock:
                self._input += one.usage.get("input", 0)
                self._output += one.usage.get("output", 0)

    def record_quality(self, score: float) -> None:
        """A score of the latest answer, better when higher."""
        if self.enabled:
            with self._lock:
                self._scores.append(float(score))
                del self._scores[: -self.quality_window]

    @property
    def quality_trend(self) -> str:
        """``improving``, ``degrading`` or ``stable``: the newer half of the window against the
        older, by their means. Fewer scores than the window are stable.
        """
        with self._lock:
            scores = list(self._scores)
        if len(scores) < self.quality_window:
            return "stable"
        half = len(scores) // 2
        older, newer = scores[:half], scores[half:]
        change = sum(newer) / len(newer) - sum(older) / len(older)
        if abs(change) < TREND_THRESHOLD:
            return "stable"
        return "improving" if change > 0 else "degrading"
