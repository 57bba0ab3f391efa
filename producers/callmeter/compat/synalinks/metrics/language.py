"""Language model metrics: tokens, latency, throughput, cost, caching, failures, streams."""

from __future__ import annotations

from typing import Any

from callmeter.compat.synalinks.metrics.model import ATTEMPTED, WALL, ModelOperationalMetric
from callmeter.compat.synalinks.modules import Role


class LMOperationalMetric(ModelOperationalMetric):
    """Base of metrics over the language models that a program reaches, fallbacks included."""

    _role = Role.LANGUAGE_MODEL

    @property
    def language_models(self) -> list[Any]:
        """The models, each once."""
        return list(self._models)


class InputTokens(LMOperationalMetric):
    """Tokens in."""

    _default_name, _part = "input_tokens", "prompt_tokens"


class OutputTokens(LMOperationalMetric):
    """Tokens out."""

    _default_name, _part = "output_tokens", "completion_tokens"


class TotalTokens(LMOperationalMetric):
    """Tokens in and out."""

    _default_name, _part = "total_tokens", "tokens"


class AvgInputTokensPerCall(LMOperationalMetric):
    """Tokens in for each call that was answered."""

    _default_name, _part, _whole = "avg_input_tokens_per_call", "prompt_tokens", "calls"


class AvgOutputTokensPerCall(LMOperationalMetric):
    """Tokens out for each call that was answered."""

    _default_name, _part, _whole = "avg_output_tokens_per_call", "completion_tokens", "calls"


class AvgTotalTokensPerCall(LMOperationalMetric):
    """Tokens in and out for each call that was answered."""

    _default_name, _part, _whole = "avg_total_tokens_per_call", "tokens", "calls"


class TokensPerSecond(LMOperationalMetric):
    """Tokens by the wall-clock time of the phase, which overlapping calls share."""

    _default_name, _part, _whole = "tokens_per_second", "tokens", WALL


class Throughput(LMOperationalMetric):
    """Calls by the wall-clock time of the phase."""

    _default_name, _part, _whole = "throughput", "calls", WALL


class AvgLatency(LMOperationalMetric):
    """Seconds of a call, however many run at once."""

    _default_name, _part, _whole = "avg_latency", "elapsed_ns", "calls"


class Cost(LMOperationalMetric):
    """USD as the providers reported it."""

    _default_name, _part = "cost", "cost_pico"

    def result(self) -> float:
        """USD."""
        return float(super().result())


class AvgCostPerCall(LMOperationalMetric):
    """USD for each call that was answered."""

    _default_name, _part, _whole = "avg_cost_per_call", "cost_pico", "calls"


class CachedTokens(LMOperationalMetric):
    """Tokens in that the provider had in its cache."""

    _default_name, _part = "cached_tokens", "cached_tokens"


class CacheCreationTokens(LMOperationalMetric):
    """Tokens written to the provider's cache."""

    _default_name, _part = "cache_creation_tokens", "cache_creation_tokens"


class CacheHitRate(LMOperationalMetric):
    """Share of tokens in that came from the provider's cache."""

    _default_name, _part, _whole = "cache_hit_rate", "cached_tokens", "prompt_tokens"


class ReasoningTokens(LMOperationalMetric):
    """Tokens out that were spent on reasoning."""

    _default_name, _part = "reasoning_tokens", "reasoning_tokens"


class ReasoningTokenShare(LMOperationalMetric):
    """Share of tokens out that were spent on reasoning."""

    _default_name, _part, _whole = "reasoning_token_share", "reasoning_tokens", "completion_tokens"


class FailedCalls(LMOperationalMetric):
    """Calls without an answer after all retries; retries inside a call do not count."""

    _default_name, _part = "failed_calls", "failed_calls"


class FallbackActivations(LMOperationalMetric):
    """Calls that were handed to the fallback."""

    _default_name, _part = "fallback_activations", "fallback_activations"


class ErrorRate(LMOperationalMetric):
    """Failed calls by all calls."""

    _default_name, _part, _whole = "error_rate", "failed_calls", ATTEMPTED


class AvgTimeToFirstToken(LMOperationalMetric):
    """Seconds to the first token of a stream that was read to its end."""

    _default_name, _part, _whole = "avg_ttft", "streaming_ttft_ns", "streaming_calls"


class AvgTimeToLastToken(LMOperationalMetric):
    """Seconds to the last token of a stream that was read to its end."""

    _default_name, _part, _whole = "avg_ttlt", "streaming_ttlt_ns", "streaming_calls"
