"""SynapseKit's observability names over callmeter: change the import line and keep the program.

    from callmeter.compat.synapsekit import CostTracker, TracingMiddleware

    llm = TracingMiddleware(CostTracker(my_llm))
    answer = await llm.generate("Explain RAG in one sentence.")

Anything with ``async generate(prompt, **kw)`` and ``stream(prompt, **kw)`` can be wrapped, and
wrappers stack in any order: the model is asked once, and one call is metered.

wrapper ── Invocation ── TraceSpan ── callmeter's call ── envelope
                            └── Span ── OTelExporter, PrometheusMetrics
"""

from __future__ import annotations

from callmeter.compat.synapsekit.audit import AuditLog
from callmeter.compat.synapsekit.budget import BudgetGuard
from callmeter.compat.synapsekit.costs import CostRecord, CostTracker
from callmeter.compat.synapsekit.distributed import DistributedTracer
from callmeter.compat.synapsekit.metrics import PrometheusMetrics
from callmeter.compat.synapsekit.middleware import TracingMiddleware
from callmeter.compat.synapsekit.otel import OTelExporter
from callmeter.compat.synapsekit.spans import Span, observe
from callmeter.compat.synapsekit.switches import configure
from callmeter.compat.synapsekit.tokens import TokenTracer
from callmeter.compat.synapsekit.tracespan import TraceSpan
from callmeter.sdk.budget.guard import BudgetExceeded, BudgetLimit, BudgetWarning
from callmeter.sdk.circuit import CircuitState

__all__ = [
    "AuditLog",
    "BudgetExceeded",
    "BudgetGuard",
    "BudgetLimit",
    "BudgetWarning",
    "CircuitState",
    "CostRecord",
    "CostTracker",
    "DistributedTracer",
    "OTelExporter",
    "PrometheusMetrics",
    "Span",
    "TokenTracer",
    "TraceSpan",
    "TracingMiddleware",
    "configure",
    "observe",
]
