"""``Queries``: every question the store answers, in one place."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from callmeter_sinks import audit as audit_log
from callmeter_sinks import program_metrics as programs
from callmeter_sinks.clickhouse.store import Store
from callmeter_sinks.queries import alerts as said
from callmeter_sinks.queries import books, export, flight, spending
from callmeter_sinks.queries import budgets as limits
from callmeter_sinks.queries import calls as single
from callmeter_sinks.queries import experiments as runs
from callmeter_sinks.queries import usage as sums
from callmeter_sinks.queries.dimensions import Filters
from callmeter_sinks.queries.sources import Question


class Queries:
    """Typed questions to a store; blocks; safe from any thread that the store is safe from.

    Common arguments: ``since`` and ``until`` are aware datetimes of a half-open period in event
    time (the start of a call), None for without end; ``project`` limits to one project; ``filters``
    maps a dimension to the value or values wanted. Dimensions: project, environment, service,
    provider, model, operation, phase, status, minute, hour, day; from single calls also user,
    session, program, node, name, response_model, error_type, finish_reason, service_tier,
    cost_source, price_version, ``tag:KEY`` and ``attribute:KEY``. Unknown figures are None. Every
    value is bound.

    Raises ``UsageError`` for a question that makes no sense, and the errors of the store.

    >>> Queries(store).report(by=["model"], top=5).rows  # doctest: +SKIP
    """

    def __init__(self, store: Store) -> None:
        self.store = store

    def _asked(
        self,
        by: Sequence[str],
        since: datetime | None,
        until: datetime | None,
        project: str | None,
        filters: Filters | None,
    ) -> Question:
        return Question.of(
            self.store, by, since=since, until=until, project=project, filters=filters
        )

    def report(
        self,
        by: Sequence[str] = ("model",),
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        project: str | None = None,
        filters: Filters | None = None,
        top: int | None = None,
        order: str | None = None,
        latencies: bool = True,
    ) -> sums.Report:
        """Calls, tokens, cost and latency by dimensions, with totals over all groups.

        Read from rollups (whole minutes: the period is widened to them, see ``Report.since``), or
        from single calls if a dimension asks for it. ``order`` is a measure or a dimension,
        descending with a leading ``-``; without it windows ascend, then the costliest come first.
        ``top`` keeps that many rows; the totals stay whole. Without ``latencies`` they are None,
        and figures by user are sums that the store keeps by day, instead of single calls.
        """
        asked = self._asked(by, since, until, project, filters)
        return sums.report(self.store, asked, top=top, order=order, latencies=latencies)

    def spenders(
        self,
        by: Sequence[str] = ("user",),
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        project: str | None = None,
        filters: Filters | None = None,
        top: int = 10,
    ) -> list[spending.Spender]:
        """The costliest groups: the first rows of ``report``, with cost, calls and failures alone.

        Half of what ``report`` takes for users, which it can only read with every figure.
        """
        asked = self._asked(by, since, until, project, filters)
        return spending.spenders(self.store, asked, top=top)

    def export_report(
        self,
        path: Path,
        fmt: str,
        by: Sequence[str] = ("model",),
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        project: str | None = None,
        filters: Filters | None = None,
        top: int | None = None,
        order: str | None = None,
    ) -> None:
        """The rows of ``report`` as a file: ``parquet``, ``arrow``, ``csv`` or ``jsonl``.

        The engine writes it; it appears under its name when it is whole.
        """
        asked = self._asked(by, since, until, project, filters)
        export.write_report(self.store, path, fmt, asked, top=top, order=order)

    def report_table(
        self,
        by: Sequence[str] = ("model",),
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        project: str | None = None,
        filters: Filters | None = None,
        top: int | None = None,
        order: str | None = None,
    ) -> Any:
        """The rows of ``report`` as a ``pyarrow.Table``; ``.to_pandas()`` for a data frame."""
        asked = self._asked(by, since, until, project, filters)
        return export.read_table(self.store, *export.report_sql(asked, top=top, order=order))

    def calls_table(
        self,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        project: str | None = None,
        filters: Filters | None = None,
    ) -> Any:
        """Every finished operation of a period as a ``pyarrow.Table``, in no order."""
        asked = export.calls_sql(since=since, until=until, project=project, filters=filters)
        return export.read_table(self.store, *asked)

    def export_calls(
        self,
        path: Path,
        fmt: str,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        project: str | None = None,
        filters: Filters | None = None,
    ) -> None:
        """Every finished operation of a period as a file, in no order."""
        asked = export.calls_sql(since=since, until=until, project=project, filters=filters)
        export.write_calls(self.store, path, fmt, *asked)

    def usage(
        self,
        by: Sequence[str] = ("model",),
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        project: str | None = None,
        filters: Filters | None = None,
    ) -> list[sums.UsageRow]:
        """How much of each unit (input, output, cache_read, image, …) was used, by dimensions."""
        asked = self._asked(by, since, until, project, filters)
        return sums.usage(self.store, asked)

    def operations(
        self,
        by: Sequence[str] = ("operation",),
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        project: str | None = None,
        filters: Filters | None = None,
    ) -> list[sums.OperationRow]:
        """Programs, nodes, tools: what is no model call, counted apart. From rollups."""
        asked = self._asked(by, since, until, project, filters)
        return sums.operations(self.store, asked)

    def calls(
        self,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        project: str | None = None,
        filters: Filters | None = None,
        limit: int = 100,
        before: datetime | None = None,
    ) -> list[single.CallRow]:
        """Single operations, newest first; ``before`` the last row's start gives the next page."""
        return single.calls(
            self.store, since=since, until=until, project=project, filters=filters,
            limit=limit, before=before,
        )  # fmt: skip

    def errors(
        self,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        project: str | None = None,
        filters: Filters | None = None,
        limit: int = 100,
    ) -> list[single.ErrorRow]:
        """Failed calls by provider, model, status, error type and HTTP status, with an example."""
        return single.errors(
            self.store, since=since, until=until, project=project, filters=filters, limit=limit
        )

    def trace(self, trace_id: str, *, project: str | None = None) -> single.Trace:
        """The tree of one trace (32 hex digits), operations that are still open included."""
        return single.trace(self.store, trace_id, project=project)

    def series(
        self,
        name: str,
        *,
        experiment: str | None = None,
        project: str | None = None,
        labels: Sequence[str] = (),
        since: datetime | None = None,
        until: datetime | None = None,
        order: runs.SeriesOrder = "step",
        descending: bool = False,
        limit: int = 100_000,
    ) -> runs.Series:
        """Points of a metric, as steps, timestamps and values of equal length.

        ``labels`` are filters, each ``key`` (the label is there) or ``key=value``.
        """
        return runs.series(
            self.store, name, experiment=experiment, project=project, labels=labels, since=since,
            until=until, order=order, descending=descending, limit=limit,
        )  # fmt: skip

    def catalog(
        self, *, project: str | None = None, experiments: Sequence[str] = ()
    ) -> list[runs.CatalogEntry]:
        """Metric names, label keys and metadata keys by experiment: up to 64, the newest first."""
        return runs.catalog(self.store, project=project, experiments=experiments)

    def experiments(
        self,
        *,
        project: str | None = None,
        metadata: Sequence[str] = (),
        text: str | None = None,
        limit: int = 100,
    ) -> list[runs.ExperimentRow]:
        """Experiments, the newest first.

        ``metadata`` are filters, each ``key`` or ``key=value``; ``text`` is looked for in the
        description and in annotations, ignoring case.
        """
        return runs.experiments(
            self.store, project=project, metadata=metadata, text=text, limit=limit
        )

    def alerts(
        self,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        project: str | None = None,
        kind: str | None = None,
        rule: str | None = None,
        limit: int = 100,
    ) -> list[said.AlertRow]:
        """What the processors raised, newest first; the period is the alerts' own time (log time).

        ``kind`` is one of ``threshold``, ``withdrawn``, ``moved``, ``slo``, ``slo_met``, ``stuck``,
        ``orphaned``, ``ended``, ``gap``, ``gap_closed``; ``rule`` a budget's name, or ``stuck``,
        ``orphaned``, ``gap``. With ``project`` those that name it, that speak of one of its sources
        or of a budget that counts its calls.
        """
        return said.alerts(
            self.store, since=since, until=until, project=project, kind=kind, rule=rule, limit=limit
        )

    def stuck(
        self, *, project: str | None = None, since: datetime | None = None, limit: int = 100
    ) -> list[said.AlertRow]:
        """Calls that are open for too long, or whose source is silent: told of, and not ended."""
        return said.stuck(self.store, project=project, since=since, limit=limit)

    def in_flight(
        self, by: Sequence[str] = ("project", "provider", "model"), *, project: str | None = None
    ) -> list[flight.OpenRow]:
        """Calls that have begun and not ended, by ``project``, ``provider``, ``model`` or none.

        By the watch's newest snapshot of each project, which is at most seconds old while it runs.
        """
        return flight.in_flight(self.store, by, project=project)

    def budget_status(
        self, *, project: str | None = None, budget: str | None = None, limit: int = 10_000
    ) -> list[limits.BudgetRow]:
        """Where every entity of every budget stands, the exceeded first; with the forecast.

        With ``project`` the budgets that count its calls.
        """
        return limits.budget_status(self.store, project=project, budget=budget, limit=limit)

    def gaps(
        self,
        *,
        project: str | None = None,
        source: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        closed: bool = False,
    ) -> list[books.Gap]:
        """Envelopes that never arrived: holes in the sequence numbers of each source.

        ``since`` and ``until`` are log time: only sources heard from in between. With ``closed``
        also the gaps that the meter told of and that have closed since.
        """
        return books.gaps(
            self.store, project=project, source=source, since=since, until=until, closed=closed
        )

    def audit(
        self,
        *,
        user: str | None = None,
        model: str | None = None,
        action: str | None = None,
        project: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int = 100,
    ) -> list[audit_log.AuditEntry]:
        """The audit log, newest first: who did what with which model."""
        return audit_log.AuditReader(self.store, project).query(
            user=user, model=model, action=action, since=since, until=until, limit=limit
        )

    def program_metrics(
        self,
        program: str,
        *,
        phase: str | None = None,
        project: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> programs.ProgramFigures:
        """A program's invocations, time, cost and what its models did, by phase; from calls.

        Two answers subtract: what a run added to an earlier baseline.
        """
        return programs.program_metrics(
            self.store, program, phase=phase, project=project, since=since, until=until
        )

    def sources(
        self, *, project: str | None = None, since: datetime | None = None
    ) -> list[books.SourceRow]:
        """Producers by the counters of their headers: what they accepted, what arrived, drops."""
        return books.sources(self.store, project=project, since=since)

    def dead_letters(
        self,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        project: str | None = None,
        reason: str | None = None,
        limit: int = 100,
    ) -> list[books.DeadLetter]:
        """Refused lines and envelopes, newest first; the period is log time."""
        return books.dead_letters(
            self.store, since=since, until=until, project=project, reason=reason, limit=limit
        )
