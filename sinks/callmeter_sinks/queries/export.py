"""Answers as files, written by the engine: calls as they are stored, and reports.

The engine encodes and streams; nothing is held whole in memory but by the port of a running
``callmeter up``. A file appears under its name when it is whole, and not before.
"""

# ruff: noqa: S608 - only text of this package is put together; every value is bound

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from datetime import datetime
from importlib import import_module
from pathlib import Path
from typing import Any

from callmeter.errors import CannotWriteError, MissingExtraError, UsageError
from callmeter.schema.histogram import PER_DOUBLING
from callmeter_sinks.clickhouse.store import Store
from callmeter_sinks.queries.dimensions import Binding, Filters, Period, filter_sql, with_project
from callmeter_sinks.queries.sources import SUMS, Question
from callmeter_sinks.queries.usage import QUANTILES, groups_sql, latencies_sql, order_sql

#: What a user may ask for, and the engine's name of it.
FORMATS: Mapping[str, str] = {
    "parquet": "Parquet",
    "arrow": "Arrow",
    "csv": "CSVWithNames",
    "jsonl": "JSONEachRow",
}
_MEASURES = ("latency_us", "ttft_us", "input_tokens", "output_tokens")
_SECOND = "%Y-%m-%dT%H:%i:%SZ"
_MICROSECOND = "%Y-%m-%dT%H:%i:%S.%fZ"
_CALLS = (
    "toString(call_id) AS call_id, replaceAll(toString(trace_id), '-', '') AS trace_id, "
    "lower(leftPad(hex(c.span_id), 16, '0')) AS span_id, "
    "if(c.parent_span_id = 0, '', lower(leftPad(hex(c.parent_span_id), 16, '0'))) "
    "AS parent_span_id, started_at, ts, project, environment, service, operation, name, provider, "
    "model, response_model, phase, program, node, user, session, status, error_type, "
    "error_message, finish_reason, service_tier, http_status, attempts, latency_us, ttft_us, "
    "input_tokens, output_tokens, usage, cost AS cost_usd, cost_source, price_version, unpriced, "
    "usage_unknown, tags, attributes, inputs, outputs, toString(log_id) AS log_id, partition, "
    "origin, idx"
)


def calls_sql(
    *,
    since: datetime | None,
    until: datetime | None,
    project: str | None,
    filters: Filters | None,
) -> tuple[str, dict[str, Any]]:
    """The statement and its bound values: finished operations, unsorted, so that none is held."""
    binding = Binding()
    where = Period.of(since, until).sql("c.started_at", binding)
    where += filter_sql(with_project(filters, project), binding)
    statement = f"SELECT {_CALLS} FROM calls AS c WHERE {' AND '.join(where) or '1'}"
    return statement, binding.values


def report_sql(
    asked: Question, *, top: int | None, order: str | None
) -> tuple[str, dict[str, Any]]:
    """The rows of a report as one statement: what ``Queries.report`` answers, without totals."""
    if top is not None and top < 1:
        raise UsageError("top is a number of rows, at least 1")
    binding = Binding()
    sums, latencies = groups_sql(asked, binding), latencies_sql(asked, binding)
    names = [f"k{place}" for place in range(len(asked.dims))]
    shown = [f"s.{key} AS `{dim.name}`" for key, dim in zip(names, asked.dims, strict=True)]
    no_usage = "calls_ > 0 AND usage_unknown_ >= calls_"
    no_cost = "calls_ > 0 AND unpriced_ + usage_unknown_ >= calls_ AND cost_ = 0"
    shown += ["calls_ AS calls", "attempts_ AS attempts", "failures_ AS failures"]
    shown += [
        f"if({no_usage}, NULL, {name}_) AS {name}" for name in ("input_tokens", "output_tokens")
    ]
    shown += [f"if({no_cost}, NULL, cost_) AS cost_usd", "unpriced_ AS unpriced_calls"]
    shown.append("usage_unknown_ AS usage_unknown")
    for place, level in enumerate(QUANTILES, 1):
        # As callmeter.schema.histogram.midpoint_us has it, of the bucket's two edges.
        low, high = (f"exp2((l.q[{place}] + {up}) / {PER_DOUBLING})" for up in (0, 1))
        us = f"l.q[{place}]" if asked.raw else f"2 * {low} * {high} / ({low} + {high})"
        shown.append(f"if(l.n > 0, {us} / 1000, NULL) AS latency_p{round(level * 100)}_ms")
    joined = ", ".join(f"s.s_{name} AS {name}_" for name in SUMS)
    same = " AND ".join(f"s.{key} = l.{key}" for key in names) or "1 = 1"
    limit = f" LIMIT {binding.add(top, 'UInt32')}" if top is not None else ""
    keys = "".join(f"s.{key} AS {key}, " for key in names)
    statement = (
        f"SELECT {', '.join(shown)} FROM (SELECT {keys}{joined} FROM ({sums}) AS s) AS s "
        f"LEFT ANY JOIN ({latencies}) AS l ON {same} "
        f"ORDER BY {order_sql(order, asked.dims)}{limit}"
    )
    return statement, binding.values


def read_table(store: Store, sql: str, params: Mapping[str, Any]) -> Any:
    """The answer as a ``pyarrow.Table``; ``MissingExtraError`` without pyarrow."""
    try:
        ipc: Any = import_module("pyarrow.ipc")  # it has no types
    except ImportError as exc:
        raise MissingExtraError("pyarrow", "embedded") from exc
    answer = store.query_bytes(sql, "ArrowStream", params)
    return ipc.open_stream(answer).read_all()


def in_text(sql: str, fmt: str, *, times: Mapping[str, str], nullable: Iterable[str]) -> str:
    """The statement as text formats take it: ISO times, exact money, and in CSV nothing for NULL.

    In the statement and not by settings, which a reader may not give. ``times`` maps a column to
    its form.
    """
    if fmt not in ("csv", "jsonl"):
        return sql
    as_text = [f"formatDateTime(`{name}`, '{form}') AS `{name}`" for name, form in times.items()]
    as_text.append("toString(cost_usd) AS cost_usd")
    sql = f"SELECT * REPLACE ({', '.join(as_text)}) FROM ({sql})"
    if fmt == "csv":
        empty = (f"ifNull(toString({name}), '') AS {name}" for name in (*nullable, "cost_usd"))
        sql = f"SELECT * REPLACE ({', '.join(empty)}) FROM ({sql})"
    return sql


def write_calls(store: Store, path: Path, fmt: str, sql: str, params: Mapping[str, Any]) -> None:
    """What ``calls_sql`` gave, as a file."""
    times = {"started_at": _MICROSECOND, "ts": _MICROSECOND}
    write_file(store, path, fmt, in_text(sql, fmt, times=times, nullable=_MEASURES), params)


def write_report(
    store: Store, path: Path, fmt: str, asked: Question, *, top: int | None, order: str | None
) -> None:
    """A report's rows as a file."""
    sql, params = report_sql(asked, top=top, order=order)
    times = {dim.name: _SECOND for dim in asked.dims if dim.kind == "window"}
    nullable = ["input_tokens", "output_tokens"]
    nullable += [f"latency_p{round(level * 100)}_ms" for level in QUANTILES]
    write_file(store, path, fmt, in_text(sql, fmt, times=times, nullable=nullable), params)


def write_file(store: Store, path: Path, fmt: str, sql: str, params: Mapping[str, Any]) -> None:
    """The answer in ``path``, which is replaced when the answer is whole; nothing is left else.

    ``UsageError`` for an unknown format, ``CannotWriteError`` for the file, and the store's errors.
    """
    if fmt not in FORMATS:
        raise UsageError(f"no format {fmt[:60]!r}: there are {', '.join(FORMATS)}")
    part = path.parent / f".{path.name}.{uuid.uuid4().hex[:12]}.part"
    try:
        try:
            part.touch(mode=0o600)
        except OSError as exc:
            raise CannotWriteError(f"{path} cannot be written: {exc.strerror}") from exc
        part.unlink()
        store.query_file(sql, FORMATS[fmt], part, params)
        part.replace(path)
    except OSError as exc:
        raise CannotWriteError(f"{path} cannot be written: {exc.strerror}") from exc
    finally:
        part.unlink(missing_ok=True)
