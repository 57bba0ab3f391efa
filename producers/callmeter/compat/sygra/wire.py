"""How a run travels: names of tags and attributes, written here and read by ``stored``.

Every event of a run carries the run's id in the tag ``sygra_run``. A request is a model call, an
execution of a node an operation ``node``, the run itself an operation ``program`` whose call id is
the run's; what only the run as a whole knows is an annotation on it, and the last one holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from callmeter.compat.sygra.records import Identity
from callmeter.ids import new_trace_id, uuid7
from callmeter.sdk.context import FRAME

RUN_TAG = "sygra_run"
#: What an event is: ``request`` or ``node``.
KIND = "sygra.kind"
MODEL = "sygra.model"
CODE = "sygra.code"
RETRY = "sygra.retry"
TOTAL = "sygra.total_tokens"
#: The span of the node execution that a request was made in.
EXECUTION = "sygra.execution"
IDENTITY = "sygra.identity"
NODE_TYPE = "sygra.node_type"
PROMPT = "sygra.prompt_tokens"
COMPLETION = "sygra.completion_tokens"
COST = "sygra.cost_pico"
#: The annotation that holds execution, dataset and record counts of a run.
RUN_NOTE = "sygra.run"
#: What the wire takes for a status: three digits.
_MAX_STATUS = 999


def request_attributes(
    label: str,
    code: int,
    identity: Identity | None,
    execution: str | None,
    *,
    retry: bool,
    total: int | None,
) -> dict[str, Any]:
    """Attributes of a model call. ``identity`` travels with a model's first request only, ``total``
    tokens only where they are not the sum of their parts.
    """
    attributes: dict[str, Any] = {KIND: "request", MODEL: label, CODE: str(code)}
    if 0 <= code <= _MAX_STATUS:
        attributes["http_status"] = code
    if retry:
        attributes[RETRY] = "true"
    if total is not None:
        attributes[TOTAL] = str(total)
    if execution:
        attributes[EXECUTION] = execution
    if identity is not None:
        attributes[IDENTITY] = {
            "model_type": identity.model_type,
            "model_url": identity.model_url,
            "parameters": dict(identity.parameters),
        }
    return attributes


def node_attributes(node_type: str, model: str | None) -> dict[str, Any]:
    """Attributes of an execution of a node."""
    return {KIND: "node", NODE_TYPE: node_type, MODEL: model}


def finished_call(
    *,
    ended_us: int,
    latency_us: int,
    operation: str,
    run_id: str,
    failed: bool,
    attributes: Mapping[str, Any],
    call_id: str | None = None,
    **fields: Any,
) -> dict[str, Any]:
    """A ``call_end`` of something that was timed elsewhere; None among fields is left out.

    It belongs to the trace in force, if there is one.
    """
    started_us = max(0, ended_us - latency_us)
    frame = FRAME.get()
    span = frame.span
    event: dict[str, Any] = {
        "kind": "call_end",
        "ts_us": ended_us,
        "call_id": call_id or uuid7(started_us // 1000),
        "trace_id": frame.trace_id or new_trace_id(),
        "started_us": started_us,
        "latency_us": latency_us,
        "operation": operation,
        "status": "error" if failed else "ok",
        "tags": {**frame.labels.tags, RUN_TAG: run_id},
        "attributes": {k: v if type(v) is str else _json(v) for k, v in attributes.items()},
    }
    if span is not None:
        event["parent_span_id"] = span if isinstance(span, str) else f"{1 << 63 | span:016x}"
    if frame.labels.phase:
        event["phase"] = frame.labels.phase
    event.update({name: value for name, value in fields.items() if value is not None})
    return event


def _json(value: Any) -> str:
    import orjson

    return orjson.dumps(value, default=str).decode()
