"""Synalinks' names over callmeter's meter: change the import line and keep the program.

    from callmeter.compat import synalinks

    synalinks.enable_observability()
    program = synalinks.Program(...)      # the installed engine's, metered

Offered here: the Monitor hook and ``enable_observability``, the recorder and ``record_traces``,
operational metrics, phases, trace context and a budget stop. Every other name comes from the
installed ``synalinks``; its modules' calls then are records in callmeter, with usage, cost and
their place in the trace.
"""

from __future__ import annotations

from callmeter.compat.synalinks import callbacks, hooks, metrics
from callmeter.compat.synalinks.callbacks import BudgetStop
from callmeter.compat.synalinks.endpoint import api_base, api_key, set_api_base, set_api_key
from callmeter.compat.synalinks.engine import Attached, instrument
from callmeter.compat.synalinks.metrics import (
    EmbeddingModelOperationalMetric,
    LMOperationalMetric,
    ProgramOperationalMetric,
)
from callmeter.compat.synalinks.monitor import Monitor
from callmeter.compat.synalinks.observability import (
    disable_observability,
    enable_observability,
    is_observability_enabled,
    record_traces,
    stop_recording,
)
from callmeter.compat.synalinks.recorder import Recorder
from callmeter.compat.synalinks.scope import op_scope, trace_context

__all__ = [
    "Attached",
    "BudgetStop",
    "EmbeddingModelOperationalMetric",
    "LMOperationalMetric",
    "Monitor",
    "ProgramOperationalMetric",
    "Recorder",
    "api_base",
    "api_key",
    "callbacks",
    "disable_observability",
    "enable_observability",
    "hooks",
    "instrument",
    "is_observability_enabled",
    "metrics",
    "op_scope",
    "record_traces",
    "set_api_base",
    "set_api_key",
    "stop_recording",
    "trace_context",
]


def __getattr__(name: str) -> object:
    """Everything else is the engine's own."""
    from callmeter.compat.synalinks.forwarding import engine_attribute

    return engine_attribute("", name, __name__)
