"""One trace: its tree, and when each part ran."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

import orjson

from callmeter.schema.events import MODEL_OPERATIONS
from callmeter_sinks.dashboard.context import Asked, Page
from callmeter_sinks.queries import Queries
from callmeter_sinks.queries.calls import CallRow, Span, Trace
from callmeter_sinks.queries.details import corrections_of

#: Spans that a page shows, in the order of the tree.
MOST_SPANS = 1000
_DEEPEST = 24
_THINNEST = 0.4


@dataclass(frozen=True, slots=True)
class Row:
    """One span: its place in the tree, and its bar in percent of the trace's time."""

    call: CallRow
    depth: int
    left: float
    width: float
    first_token: float | None
    correction: Decimal | None
    inputs: str
    outputs: str

    @property
    def is_call(self) -> bool:
        """Whether it is a model call, and not a program, a node or a tool."""
        return self.call.operation in MODEL_OPERATIONS


async def page(asked: Asked) -> Page:
    """404 for a trace that the store does not have; ``UsageError`` for an id that is none."""
    trace_id, project = asked.request.match_info["trace_id"], asked.view.project
    trace, corrections = await asked.dashboard.reading.ask(
        ("trace", trace_id, project), lambda queries: _read(queries, trace_id, project)
    )
    title = "Trace"
    if not trace.calls:
        said = f"No trace {trace_id} is in the store."
        return Page("nothing.html", {"title": title, "said": said, "back": "/calls"}, 404)
    calls = [call for call, _ in walk(trace.roots)]
    began = min(call.started_at for call in calls)
    ended = max(_end(call, asked.now) for call in calls)
    models = [call for call in calls if call.operation in MODEL_OPERATIONS]
    rows = _rows(trace.roots, corrections, began, ended, asked.now)
    cost = trace.cost_usd
    if corrections:
        cost = (cost or Decimal(0)) + sum(corrections.values(), Decimal(0))
    return Page(
        "trace.html",
        {
            "title": title,
            "trace": trace,
            "rows": rows,
            "hidden": len(calls) - len(rows),
            "began": began,
            "length_ms": (ended - began) / timedelta(milliseconds=1),
            "cost": cost,
            "models": len(models),
            "failed": sum(call.status not in ("ok", "open") for call in calls),
            "open": sum(call.status == "open" for call in calls),
            "input_tokens": _sum(call.input_tokens for call in models),
            "output_tokens": _sum(call.output_tokens for call in models),
        },
    )


def walk(roots: Sequence[Span]) -> Iterator[tuple[CallRow, int]]:
    """Every call of the trees with its depth, parents first; no recursion, however deep."""
    waiting = [(span, 0) for span in reversed(roots)]
    while waiting:
        span, depth = waiting.pop()
        yield span.call, depth
        waiting += [(child, depth + 1) for child in reversed(span.children)]


def _read(
    queries: Queries, trace_id: str, project: str | None
) -> tuple[Trace, Mapping[str, Decimal]]:
    trace = queries.trace(trace_id, project=project)
    ids = [call.call_id for call, _ in walk(trace.roots)]
    return trace, corrections_of(queries.store, ids) if ids else {}


def _rows(
    roots: Sequence[Span],
    corrections: Mapping[str, Decimal],
    began: datetime,
    ended: datetime,
    now: datetime,
) -> list[Row]:
    whole = max((ended - began) / timedelta(microseconds=1), 1.0)
    rows: list[Row] = []
    for call, depth in walk(roots):
        if len(rows) == MOST_SPANS:
            break
        left = 100 * ((call.started_at - began) / timedelta(microseconds=1)) / whole
        length = 100 * ((_end(call, now) - call.started_at) / timedelta(microseconds=1)) / whole
        width = max(length, _THINNEST)
        token = None if call.ttft_us is None else min(100 * call.ttft_us / whole, width)
        rows.append(
            Row(
                call=call,
                depth=min(depth, _DEEPEST),
                left=round(min(left, 100 - _THINNEST), 3),
                width=round(width, 3),
                first_token=None if token is None else round(token, 3),
                correction=corrections.get(call.call_id),
                inputs=_text(call.inputs),
                outputs=_text(call.outputs),
            )
        )
    return rows


def _end(call: CallRow, now: datetime) -> datetime:
    """When it ended; what is open runs until now, but not longer than a clock can be wrong."""
    if call.latency_us is not None:
        return call.started_at + timedelta(microseconds=call.latency_us)
    return max(now, call.started_at) if call.status == "open" else call.started_at


def _text(said: str) -> str:
    """Inputs and outputs are JSON text as sent: shown with indents, or as they are."""
    if not said:
        return ""
    try:
        held = orjson.loads(said)
    except orjson.JSONDecodeError:
        return said
    if isinstance(held, str):
        return held
    return orjson.dumps(held, option=orjson.OPT_INDENT_2).decode()


def _sum(values: Iterator[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None
