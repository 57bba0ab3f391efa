"""Requests and node executions on their way into a run's totals and to the meter."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextvars import ContextVar, Token
from typing import Any, NamedTuple

from callmeter.compat.sygra import wire
from callmeter.compat.sygra.costs import Unpriced, provider_of
from callmeter.compat.sygra.execution import UNKNOWN_TASK
from callmeter.compat.sygra.records import NO_TOKENS, Execution, Identity, Request, Tokens
from callmeter.compat.sygra.repository import scrub_url
from callmeter.compat.sygra.state import Model, RunState
from callmeter.sdk import api
from callmeter.sdk.call import NO_CALL, Call
from callmeter.sdk.freezing import freeze
from callmeter.sdk.scrub import redact

#: Of a model's configuration, never kept.
_SECRETS = frozenset({"api_key", "auth_token", "authorization", "password", "secret"})


def model_of(label: str, config: Mapping[str, Any]) -> Model:
    """Who sells a model under which name: that of its configuration, else its label."""
    name = config.get("model")
    return Model(provider_of(_type(config)), name if isinstance(name, str) else label)


def identify(run: RunState, label: str, model: Model, config: Mapping[str, Any]) -> Identity | None:
    """What the model is, without secrets, on its first request in the run; later None."""
    if label in run.models:
        return None
    url = config.get("url") or config.get("model_url") or config.get("base_url")
    given = config.get("parameters")
    parameters = dict(given) if isinstance(given, Mapping) else {}
    if "api_version" in config:
        parameters.setdefault("api_version", config["api_version"])
    client = api.default_client()
    hidden = _SECRETS if client is None else _SECRETS.union(client.settings.redact_keys)
    identity = Identity(
        _type(config),
        scrub_url(url) if isinstance(url, str) else None,
        redact(freeze(parameters), hidden),
    )
    with run.lock:
        fresh = run.totals.identify(label, identity)
        run.models[label] = model
    return identity if fresh else None


def _type(config: Mapping[str, Any]) -> str:
    return str(config.get("type") or config.get("model_type") or "unknown")


class RequestNote(NamedTuple):
    """A request that is over. ``usage`` None is unknown; ``cost_pico`` is what a caller told."""

    label: str
    latency_us: int
    code: int
    retry: bool
    tokens: tuple[int, int, int]
    usage: Mapping[str, int] | None
    model: Model
    began_us: int
    node: LiveNode | None
    cost_pico: int | None = None

    def fold(self, run: RunState) -> None:
        """Into the model's totals, and the node's."""
        tokens, node = Tokens(*self.tokens), self.node
        run.totals.add_request(
            Request(self.label, self.latency_us, self.code, self.retry, tokens, self.cost_pico)
        )
        name = None if node is None else node.name
        if node is not None:
            node.tokens = node.tokens.plus(tokens)
        if self.cost_pico is not None:
            if name is not None:
                run.totals.add_node_cost(name, self.cost_pico)
        elif self.usage:
            provider, model = self.model
            run.owe(Unpriced(self.label, name, provider, model, self.began_us, self.usage))


def record_request(
    run: RunState,
    request: Request,
    config: Mapping[str, Any] | None,
    usage: Mapping[str, int] | None,
    node_name: str | None,
) -> None:
    """Take and hand on a request that was timed elsewhere and has just ended."""
    said = config if isinstance(config, Mapping) else {}
    model = run.models.get(request.model) or model_of(request.model, said)
    fresh = identify(run, request.model, model, said)
    node = NODE.get()
    ended_us = time.time_ns() // 1000
    tokens = request.tokens
    run.note(
        RequestNote(
            label=request.model,
            latency_us=request.latency_us,
            code=request.code,
            retry=request.retry,
            tokens=(tokens.prompt, tokens.completion, tokens.total),
            usage=usage,
            model=model,
            began_us=max(0, ended_us - request.latency_us),
            node=node,
            cost_pico=request.cost_pico,
        )
    )
    client = api.default_client()
    if client is None or client.intake is None:
        return
    more: dict[str, Any] = {}
    if request.cost_pico is not None:
        more.update(cost_pico=str(request.cost_pico), cost_source="reported")
    if request.failed:
        more["error_type"] = f"http_{request.code}"
    span = None if node is None else node.span
    attributes = wire.request_attributes(
        request.model, request.code, fresh, span, retry=request.retry, total=_odd_total(tokens)
    )
    status = attributes.pop("http_status", None)
    client.emit_event(
        wire.finished_call(
            ended_us=ended_us,
            latency_us=request.latency_us,
            operation="chat",
            run_id=run.id,
            failed=request.failed,
            attributes=attributes,
            http_status=status,
            model=model.name[:256],
            provider=model.provider,
            program=task_of(run),
            node=node_name if node is None else node.name[:256],
            usage=usage,
            **more,
        )
    )


def _odd_total(tokens: Tokens) -> int | None:
    """The total where it is not the sum of its parts."""
    return None if tokens.total == tokens.prompt + tokens.completion else tokens.total


def task_of(run: RunState) -> str | None:
    """The run's task as the program its calls belong to; None if nobody named it."""
    task = run.execution.task_name
    return None if task == UNKNOWN_TASK else task[:256]


class LiveNode:
    """An execution of a node that is under way; requests inside it count for it."""

    __slots__ = ("_call", "_latency_us", "_run", "_start_ns", "_token", "failed", "model", "name",
                 "node_type", "tokens")  # fmt: skip

    def __init__(self, run: RunState, name: str, node_type: str, model: str | None) -> None:
        self.name = name
        self.node_type = node_type
        self.model = model
        self.failed = False
        self.tokens = NO_TOKENS
        self._run = run
        self._latency_us = 0
        self._call: Call = NO_CALL
        self._start_ns = 0
        self._token: Token[LiveNode | None] | None = None

    @property
    def span(self) -> str | None:
        """The span of the execution, None where nothing is metered."""
        return self._call.span_id or None

    def begin(self) -> None:
        """The node starts, in this task or thread."""
        self._token = NODE.set(self)
        client = api.default_client()
        if client is not None and client.intake is not None:
            fields = wire.node_attributes(self.node_type, self.model)
            self._call = client.generation(
                self.name,
                model="",
                operation="node",
                tags={wire.RUN_TAG: self._run.id},
                node=self.name,
                program=task_of(self._run),
                **{k: v for k, v in fields.items() if v is not None},
            )
        self._start_ns = time.perf_counter_ns()
        self._call.__enter__()

    def end(self, exc: BaseException | None) -> None:
        """The node is done; it has failed if it raised or its answer says so."""
        if self.failed:
            self._call.failed("error_marker")
        self._call.__exit__(None if exc is None else type(exc), exc, None)
        if self._token is not None:
            try:
                NODE.reset(self._token)
            except ValueError:
                # Ended in another task: that one's context never knew this node.
                self._token = None
        self._latency_us = elapsed_us(self._call, self._start_ns)
        self.failed = self.failed or exc is not None
        self._run.note(self)

    def fold(self, run: RunState) -> None:
        """Into the node's totals; the requests within have been folded before."""
        run.totals.add_execution(
            Execution(
                node=self.name,
                node_type=self.node_type,
                model=self.model,
                latency_us=self._latency_us,
                failed=self.failed,
                tokens=self.tokens,
            )
        )

    @staticmethod
    def record(run: RunState, execution: Execution) -> None:
        """Take and hand on an execution that was timed elsewhere."""
        with run.lock:
            run.totals.add_execution(execution)
        client = api.default_client()
        if client is None or client.intake is None:
            return
        attributes = {k: v for k, v in wire.node_attributes(
            execution.node_type, execution.model).items() if v is not None}  # fmt: skip
        if execution.tokens:
            attributes[wire.PROMPT] = str(execution.tokens.prompt)
            attributes[wire.COMPLETION] = str(execution.tokens.completion)
            attributes[wire.TOTAL] = str(execution.tokens.total)
        if execution.cost_pico:
            attributes[wire.COST] = str(execution.cost_pico)
        client.emit_event(
            wire.finished_call(
                ended_us=time.time_ns() // 1000,
                latency_us=execution.latency_us,
                operation="node",
                run_id=run.id,
                failed=execution.failed,
                attributes=attributes,
                name=execution.node[:256],
                node=execution.node[:256],
                program=task_of(run),
            )
        )


def elapsed_us(call: Call, start_ns: int) -> int:
    """How long a call took, by its own clock, so that the store says the same."""
    if call is NO_CALL:
        return (time.perf_counter_ns() - start_ns) // 1000
    return (call.end_ns - call.start_ns) // 1000


#: The node that this task or thread is in.
NODE: ContextVar[LiveNode | None] = ContextVar("callmeter_sygra_node", default=None)
