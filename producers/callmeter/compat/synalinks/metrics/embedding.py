"""Embedding model metrics: tokens, vectors, latency, cost."""

from __future__ import annotations

from typing import Any

from callmeter.compat.synalinks.metrics.model import ATTEMPTED, WALL, ModelOperationalMetric
from callmeter.compat.synalinks.modules import Role


class EmbeddingModelOperationalMetric(ModelOperationalMetric):
    """Base of metrics over the embedding models that a program reaches, fallbacks included."""

    _role = Role.EMBEDDING_MODEL

    @property
    def embedding_models(self) -> list[Any]:
        """The models, each once."""
        return list(self._models)


class EmbeddingTokens(EmbeddingModelOperationalMetric):
    """Tokens embedded."""

    _default_name, _part = "embedding_tokens", "tokens"


class EmbeddingVectors(EmbeddingModelOperationalMetric):
    """Vectors made."""

    _default_name, _part = "embedding_vectors", "vectors"


class EmbeddingCost(EmbeddingModelOperationalMetric):
    """USD as the providers reported it."""

    _default_name, _part = "embedding_cost", "cost_pico"

    def result(self) -> float:
        """USD."""
        return float(super().result())


class EmbeddingThroughput(EmbeddingModelOperationalMetric):
    """Calls by the wall-clock time of the phase."""

    _default_name, _part, _whole = "embedding_throughput", "calls", WALL


class AvgEmbeddingLatency(EmbeddingModelOperationalMetric):
    """Seconds of a call, however many run at once."""

    _default_name, _part, _whole = "avg_embedding_latency", "elapsed_ns", "calls"


class EmbeddingTokensPerSecond(EmbeddingModelOperationalMetric):
    """Tokens by the wall-clock time of the phase."""

    _default_name, _part, _whole = "embedding_tokens_per_second", "tokens", WALL


class EmbeddingVectorsPerSecond(EmbeddingModelOperationalMetric):
    """Vectors by the wall-clock time of the phase."""

    _default_name, _part, _whole = "embedding_vectors_per_second", "vectors", WALL


class AvgEmbeddingTokensPerCall(EmbeddingModelOperationalMetric):
    """Tokens for each call that was answered."""

    _default_name, _part, _whole = "avg_embedding_tokens_per_call", "tokens", "calls"


class AvgEmbeddingVectorsPerCall(EmbeddingModelOperationalMetric):
    """Vectors for each call that was answered."""

    _default_name, _part, _whole = "avg_embedding_vectors_per_call", "vectors", "calls"


class AvgEmbeddingCostPerCall(EmbeddingModelOperationalMetric):
    """USD for each call that was answered."""

    _default_name, _part, _whole = "avg_embedding_cost_per_call", "cost_pico", "calls"


class EmbeddingErrorRate(EmbeddingModelOperationalMetric):
    """Failed calls by all calls."""

    _default_name, _part, _whole = "embedding_error_rate", "failed_calls", ATTEMPTED
