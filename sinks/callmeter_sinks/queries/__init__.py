"""Questions to the store, typed, with bound values only."""

from __future__ import annotations

from callmeter_sinks.queries.alerts import AlertRow
from callmeter_sinks.queries.books import DeadLetter, Gap, SourceRow
from callmeter_sinks.queries.budgets import BudgetRow
from callmeter_sinks.queries.calls import CallRow, ErrorRow, Span, Trace
from callmeter_sinks.queries.experiments import CatalogEntry, ExperimentRow, Series
from callmeter_sinks.queries.facade import Queries
from callmeter_sinks.queries.flight import OpenRow
from callmeter_sinks.queries.spending import Spender, Spent
from callmeter_sinks.queries.usage import Figures, OperationRow, Report, ReportRow, UsageRow

__all__ = [
    "AlertRow",
    "BudgetRow",
    "CallRow",
    "CatalogEntry",
    "DeadLetter",
    "ErrorRow",
    "ExperimentRow",
    "Figures",
    "Gap",
    "OpenRow",
    "OperationRow",
    "Queries",
    "Report",
    "ReportRow",
    "Series",
    "SourceRow",
    "Span",
    "Spender",
    "Spent",
    "Trace",
    "UsageRow",
]
