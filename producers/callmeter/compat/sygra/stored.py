"""The document of a past run, out of what the meter has stored."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

from callmeter.compat.sygra import wire
from callmeter.compat.sygra.document import document
from callmeter.compat.sygra.execution import Dataset, ExecutionContext
from callmeter.compat.sygra.records import OK, Execution, Identity, Request, Tokens
from callmeter.compat.sygra.totals import Totals


class StoredCall(Protocol):
    """A finished call of a run, as the store gives it."""

    @property
    def span_id(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def model(self) -> str: ...
    @property
    def status(self) -> str: ...
    @property
    def latency_us(self) -> int: ...
    @property
    def input_tokens(self) -> int: ...
    @property
    def output_tokens(self) -> int: ...
    @property
    def cost_pico(self) -> int: ...
    @property
    def attributes(self) -> Mapping[str, str]: ...


def stored_document(
    calls: Sequence[StoredCall], facts: Mapping[str, Any] | None, generated_at: datetime
) -> dict[str, Any]:
    """The document of a run from its calls, in order of their start, and its last annotation.

    Without the annotation (``facts``) execution and dataset are unknown and records 0. Costs are
    the meter's, corrections included.
    """
    told = facts or {}
    totals = Totals()
    records = told.get("records", {})
    totals.processed, totals.failed = records.get("processed", 0), records.get("failed", 0)
    for call in calls:
        if wire.IDENTITY in call.attributes:
            totals.identify(_label(call), _identity(call.attributes[wire.IDENTITY]))
    within: dict[str, tuple[Tokens, int]] = {}
    for call in calls:
        if call.attributes.get(wire.KIND) == "request":
            request = _request(call)
            totals.add_request(request)
            span = call.attributes.get(wire.EXECUTION)
            if span:
                tokens, cost_pico = within.get(span, (Tokens(), 0))
                within[span] = tokens.plus(request.tokens), cost_pico + (request.cost_pico or 0)
    for call in calls:
        if call.attributes.get(wire.KIND) == "node":
            totals.add_execution(_execution(call, *within.get(call.span_id, (Tokens(), 0))))
    execution = told.get("execution") or ExecutionContext().to_json()
    dataset = told.get("dataset") or Dataset().to_json()
    return document(execution, dataset, totals, generated_at)


def _label(call: StoredCall) -> str:
    return call.attributes.get(wire.MODEL) or call.model


def _request(call: StoredCall) -> Request:
    prompt, completion = call.input_tokens, call.output_tokens
    total = _number(call.attributes, wire.TOTAL, prompt + completion)
    return Request(
        model=_label(call),
        latency_us=call.latency_us,
        code=_number(call.attributes, wire.CODE, OK),
        retry=wire.RETRY in call.attributes,
        tokens=Tokens(prompt, completion, total),
        cost_pico=call.cost_pico,
    )


def _execution(call: StoredCall, tokens: Tokens, cost_pico: int) -> Execution:
    own = call.attributes
    said = Tokens(
        _number(own, wire.PROMPT, 0), _number(own, wire.COMPLETION, 0), _number(own, wire.TOTAL, 0)
    )
    return Execution(
        node=call.name,
        node_type=own.get(wire.NODE_TYPE, ""),
        model=own.get(wire.MODEL),
        latency_us=call.latency_us,
        failed=call.status != "ok",
        tokens=tokens.plus(said),
        cost_pico=cost_pico + _number(own, wire.COST, 0),
    )


def _identity(text: str) -> Identity:
    said = json.loads(text)
    return Identity(said["model_type"], said["model_url"], said["parameters"])


def _number(attributes: Mapping[str, str], name: str, default: int) -> int:
    text = attributes.get(name)
    return default if text is None else int(text)
