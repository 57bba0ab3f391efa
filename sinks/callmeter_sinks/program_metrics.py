"""A program's figures from stored calls: invocations, time, cost, what its models did, by phase.

A program's invocation is a ``program`` operation under its own name and label; all that runs inside
carries that label. Definitions are those of Synalinks' reference, "Program operational metrics". A
run is told from what was before by its start (``since``), or by taking earlier figures away.
"""

# ruff: noqa: S608 - only text of this package is put together; every value is bound

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import datetime
from decimal import Decimal
from typing import Self

from callmeter.schema.events import MODEL_OPERATIONS
from callmeter_sinks.clickhouse.store import Store
from callmeter_sinks.queries.dimensions import Binding, Period

#: The metric in which producers tell a phase's wall-clock time.
PHASE_SECONDS = "synalinks.phase_seconds"
_MODELS = "({})".format(", ".join(f"'{name}'" for name in sorted(MODEL_OPERATIONS)))


@dataclass(frozen=True, slots=True)
class ProgramFigures:
    """Sums over a period; times in microseconds, money in USD, exact.

    ``calls`` are invocations, failed ones included; ``elapsed_us`` is their own time, summed.
    ``cost_usd`` sums the known cost of model calls, and ``cost_unknown`` counts those that are not
    in it. ``model_calls`` were answered, ``model_failures`` were not; ``cached`` and ``reasoning``
    are parts of ``input_tokens`` and ``output_tokens``. Streams are calls with a first token.
    """

    calls: int = 0
    failures: int = 0
    elapsed_us: int = 0
    cost_usd: Decimal = Decimal(0)
    cost_unknown: int = 0
    model_calls: int = 0
    model_failures: int = 0
    model_elapsed_us: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    vectors: int = 0
    streams: int = 0
    ttft_us: int = 0
    ttlt_us: int = 0

    def __sub__(self, baseline: ProgramFigures) -> Self:
        """What has come since the baseline."""
        names = [each.name for each in fields(self)]
        return type(self)(**{n: getattr(self, n) - getattr(baseline, n) for n in names})

    @property
    def elapsed_s(self) -> float:
        """Seconds inside the program, summed over invocations."""
        return self.elapsed_us / 1e6

    @property
    def calls_per_second(self) -> float:
        """Invocations by their summed time; 0.0 where there is none."""
        return self.calls * 1e6 / self.elapsed_us if self.elapsed_us else 0.0

    @property
    def avg_cost_per_invocation_usd(self) -> Decimal:
        """Cost by invocations; 0 without one."""
        return self.cost_usd / self.calls if self.calls else Decimal(0)

    @property
    def error_rate(self) -> float:
        """Failed model calls by all; 0.0 without one. Retries inside a call are none."""
        asked = self.model_calls + self.model_failures
        return self.model_failures / asked if asked else 0.0

    @property
    def cache_hit_rate(self) -> float:
        """Share of tokens in that came from the provider's cache."""
        return self.cached_tokens / self.input_tokens if self.input_tokens else 0.0

    @property
    def reasoning_share(self) -> float:
        """Share of tokens out that were spent on reasoning."""
        return self.reasoning_tokens / self.output_tokens if self.output_tokens else 0.0


# One pass over the calls that carry the program's label. ``ok`` are answered model calls; one that
# came from the engine's own cache asked nobody.
_SUMS = f"""
SELECT
  countIf(own), countIf(own AND status != 'ok'), sumIf(ifNull(latency_us, 0), own),
  sumIf(ifNull(cost, 0), model_call), countIf(model_call AND cost IS NULL),
  countIf(ok), countIf(model_call AND status = 'error'), sumIf(ifNull(latency_us, 0), ok),
  sumIf(ifNull(input_tokens, 0), ok), sumIf(ifNull(output_tokens, 0), ok),
  sumIf(usage['cache_read'], ok), sumIf(usage['reasoning'], ok),
  sumIf(toUInt64OrZero(attributes['vectors']), ok),
  countIf(stream), sumIf(ifNull(ttft_us, 0), stream), sumIf(ifNull(latency_us, 0), stream)
FROM (
  SELECT *,
    operation = 'program' AND name = program AS own,
    operation IN {_MODELS} AS model_call,
    model_call AND status = 'ok' AND attributes['cache_hit'] != 'true' AS ok,
    ok AND ttft_us IS NOT NULL AS stream
  FROM calls
  WHERE """


def program_metrics(
    store: Store,
    program: str,
    *,
    phase: str | None = None,
    project: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
) -> ProgramFigures:
    """A program's figures. ``phase`` None is all time; a call outside any phase is in no other.

    ``since`` and ``until`` are aware datetimes of a half-open period of calls' starts. Money that
    came apart from its call (a correction) is part of the cost. ``UsageError`` for a bad period.
    """
    binding = Binding()
    where = _where(binding, program, phase, project, Period.of(since, until))
    (row,) = store.query(f"{_SUMS}{where})", binding.values).rows
    ((apart,),) = store.query(f"SELECT sum(cost) FROM costs WHERE {where}", binding.values).rows
    calls, failures, elapsed_us, cost, *rest = row
    total = Decimal(cost) + Decimal(apart)
    return ProgramFigures(calls, failures, elapsed_us, total, *(int(each) for each in rest))


def phase_seconds(
    store: Store,
    phase: str,
    *,
    project: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
) -> float:
    """Wall-clock seconds of a phase, nested phases left out; what throughput is divided by."""
    binding = Binding()
    where = [
        f"name = {binding.add(PHASE_SECONDS, 'String')}",
        f"labels['phase'] = {binding.add(phase, 'String')}",
    ]
    if project is not None:
        where.append(f"project = {binding.add(project, 'String')}")
    where += Period.of(since, until).sql("ts", binding)
    sql = f"SELECT sum(value) FROM metrics WHERE {' AND '.join(where)}"
    ((seconds,),) = store.query(sql, binding.values).rows
    return float(seconds)


def _where(
    binding: Binding, program: str, phase: str | None, project: str | None, period: Period
) -> str:
    where = [f"program = {binding.add(program, 'String')}"]
    if phase is not None:
        where.append(f"phase = {binding.add(phase, 'String')}")
    if project is not None:
        where.append(f"project = {binding.add(project, 'String')}")
    return " AND ".join(where + period.sql("started_at", binding))
