"""Operational metrics under Synalinks' names: of programs, language models, embedding models.

All read the totals of callmeter's own records, by phase and since a baseline.
"""

from __future__ import annotations

from callmeter.compat.synalinks.metrics.embedding import (
    AvgEmbeddingCostPerCall,
    AvgEmbeddingLatency,
    AvgEmbeddingTokensPerCall,
    AvgEmbeddingVectorsPerCall,
    EmbeddingCost,
    EmbeddingErrorRate,
    EmbeddingModelOperationalMetric,
    EmbeddingThroughput,
    EmbeddingTokens,
    EmbeddingTokensPerSecond,
    EmbeddingVectors,
    EmbeddingVectorsPerSecond,
)
from callmeter.compat.synalinks.metrics.language import (
    AvgCostPerCall,
    AvgInputTokensPerCall,
    AvgLatency,
    AvgOutputTokensPerCall,
    AvgTimeToFirstToken,
    AvgTimeToLastToken,
    AvgTotalTokensPerCall,
    CacheCreationTokens,
    CachedTokens,
    CacheHitRate,
    Cost,
    ErrorRate,
    FailedCalls,
    FallbackActivations,
    InputTokens,
    LMOperationalMetric,
    OutputTokens,
    ReasoningTokens,
    ReasoningTokenShare,
    Throughput,
    TokensPerSecond,
    TotalTokens,
)
from callmeter.compat.synalinks.metrics.program import (
    ProgramAvgCostPerInvocation,
    ProgramCalls,
    ProgramCallsPerSecond,
    ProgramCost,
    ProgramElapsedTime,
    ProgramOperationalMetric,
)

__all__ = [
    "AvgCostPerCall",
    "AvgEmbeddingCostPerCall",
    "AvgEmbeddingLatency",
    "AvgEmbeddingTokensPerCall",
    "AvgEmbeddingVectorsPerCall",
    "AvgInputTokensPerCall",
    "AvgLatency",
    "AvgOutputTokensPerCall",
    "AvgTimeToFirstToken",
    "AvgTimeToLastToken",
    "AvgTotalTokensPerCall",
    "CacheCreationTokens",
    "CacheHitRate",
    "CachedTokens",
    "Cost",
    "EmbeddingCost",
    "EmbeddingErrorRate",
    "EmbeddingModelOperationalMetric",
    "EmbeddingThroughput",
    "EmbeddingTokens",
    "EmbeddingTokensPerSecond",
    "EmbeddingVectors",
    "EmbeddingVectorsPerSecond",
    "ErrorRate",
    "FailedCalls",
    "FallbackActivations",
    "InputTokens",
    "LMOperationalMetric",
    "OutputTokens",
    "ProgramAvgCostPerInvocation",
    "ProgramCalls",
    "ProgramCallsPerSecond",
    "ProgramCost",
    "ProgramElapsedTime",
    "ProgramOperationalMetric",
    "ReasoningTokenShare",
    "ReasoningTokens",
    "Throughput",
    "TokensPerSecond",
    "TotalTokens",
]


def __getattr__(name: str) -> object:
    """Metrics that callmeter has no counterpart of come from the installed engine."""
    from callmeter.compat.synalinks.forwarding import engine_attribute

    return engine_attribute("metrics", name, __name__)
