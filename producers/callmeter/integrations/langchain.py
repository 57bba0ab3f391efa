"""LangChain and LangGraph, by LangChain's callbacks: models, tools, retrievers, graphs and nodes.

Runs hang together by LangChain's run ids, so streams, threads and parallel branches keep their
tree. A model call that goes through a client that is instrumented too is billed there
(``nesting``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any, NamedTuple
from uuid import UUID

from callmeter.errors import MissingExtraError
from callmeter.integrations.langchain_reading import (
    from_cache,
    model_of,
    provider_of,
    reply_of,
    run_name,
    steers,
    who,
)
from callmeter.sdk import api
from callmeter.sdk.call import NO_CALL, Call
from callmeter.sdk.containment import contained
from callmeter.sdk.nesting import expect
from callmeter.sdk.usage.fields import text

try:
    from langchain_core.callbacks import BaseCallbackHandler
except ModuleNotFoundError as exc:
    raise MissingExtraError("langchain-core", "langchain") from exc

#: Runs that may be open at a time; one whose end is never told must not stay for ever.
MAX_OPEN = 10_000
_HIDDEN = "langsmith:hidden"


class _Run(NamedTuple):
    """What LangChain says of where a run stands."""

    id: UUID
    parent: UUID | None
    metadata: Mapping[str, Any]


class CallmeterCallback(BaseCallbackHandler):
    """Meters what runs with it: ``config={"callbacks": [CallmeterCallback()]}``.

    ``callmeter.instrument("langchain")`` puts one into every run. The outermost run becomes a
    ``program``, a LangGraph node a ``node``, a tool ``execute_tool``, a retriever ``retrieval``;
    what lies between appears only with ``every_chain``. ``user_id``, ``session_id`` and
    ``thread_id`` of the run's metadata become user and session.

    >>> graph.invoke(question, config={"callbacks": [CallmeterCallback()]})
    """

    #: In the caller's own task, so that a client instrumented below sees that it is wrapped.
    run_inline = True

    def __init__(self, *, every_chain: bool = False) -> None:
        self.every_chain = every_chain
        self.enabled = True
        #: Runs under way: their call, or the one they belong to where they are no call themselves.
        self._runs: dict[UUID, tuple[Call | None, bool]] = {}

    # --- models ------------------------------------------------------------------------------

    @contained("the LangChain callback")
    def on_chat_model_start(
        self,
        serialized: dict[str, Any],
        messages: list[list[Any]],
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        metadata: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """A chat model is asked."""
        run = _Run(run_id, parent_run_id, metadata or {})
        self._begin_model("chat", messages, run, kwargs)

    @contained("the LangChain callback")
    def on_llm_start(
        self,
        serialized: dict[str, Any],
        prompts: list[str],
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        metadata: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """A text model is asked."""
        run = _Run(run_id, parent_run_id, metadata or {})
        self._begin_model("text_completion", prompts, run, kwargs)

    @contained("the LangChain callback")
    def on_llm_new_token(self, token: Any, *, run_id: UUID, **kwargs: Any) -> None:
        """A piece of the answer has come."""
        call, own = self._runs.get(run_id, (None, False))
        if call is not None and own:
            call.first_token()

    @contained("the LangChain callback")
    def on_retry(self, retry_state: Any, *, run_id: UUID, **kwargs: Any) -> None:
        """The model is asked again."""
        call, own = self._runs.get(run_id, (None, False))
        if call is not None and own:
            call.set(attempts=int(retry_state.attempt_number) + 1)

    @contained("the LangChain callback")
    def on_llm_end(self, response: Any, *, run_id: UUID, **kwargs: Any) -> None:
        """The model has answered; an answer from LangChain's cache used and cost nothing."""
        call = self._taken(run_id)
        if call is None:
            return
        reply = reply_of(response)
        call.record(reply)
        if from_cache(reply):
            call.usage(0, 0)
            call.cost("0", source="cache")
            call.set(cache_hit=True)
        call.finish()

    # --- what is no model --------------------------------------------------------------------

    @contained("the LangChain callback")
    def on_chain_start(
        self,
        serialized: dict[str, Any] | None,
        inputs: Any,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        tags: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        """A graph, a node of one, or another chain begins."""
        run = _Run(run_id, parent_run_id, metadata or {})
        label = name or run_name(serialized)
        around = None if parent_run_id is None else self._runs.get(parent_run_id)
        shown = _HIDDEN not in (tags or ())
        if around is None:
            self._begin(label, "program", inputs, run)
        elif shown and label == run.metadata.get("langgraph_node"):
            self._begin(label, "node", inputs, run)
        elif shown and self.every_chain:
            self._begin(label, "chain", inputs, run)
        else:
            self._keep(run_id, around[0], own=False)

    @contained("the LangChain callback")
    def on_tool_start(
        self,
        serialized: dict[str, Any] | None,
        input_str: str,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        metadata: dict[str, Any] | None = None,
        inputs: dict[str, Any] | None = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        """A tool is called."""
        given = input_str if inputs is None else inputs
        run = _Run(run_id, parent_run_id, metadata or {})
        self._begin(name or run_name(serialized), "execute_tool", given, run)

    @contained("the LangChain callback")
    def on_retriever_start(
        self,
        serialized: dict[str, Any] | None,
        query: str,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        metadata: dict[str, Any] | None = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        """Documents are looked for."""
        run = _Run(run_id, parent_run_id, metadata or {})
        self._begin(name or run_name(serialized), "retrieval", query, run)

    def on_chain_end(self, outputs: Any, *, run_id: UUID, **kwargs: Any) -> None:
        """It has ended."""
        self._end(run_id, outputs)

    def on_tool_end(self, output: Any, *, run_id: UUID, **kwargs: Any) -> None:
        """The tool has answered."""
        self._end(run_id, output)

    def on_retriever_end(self, documents: Any, *, run_id: UUID, **kwargs: Any) -> None:
        """Documents were found."""
        self._end(run_id, documents)

    @contained("the LangChain callback")
    def on_chain_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """It has failed; so for tools, retrievers and models. A graph's interrupt is no failure."""
        call = self._taken(run_id)
        if call is not None:
            call.finish(None if steers(error) else error)

    on_llm_error = on_tool_error = on_retriever_error = on_chain_error

    # --- inside ------------------------------------------------------------------------------

    def _begin_model(
        self, operation: str, inputs: Any, run: _Run, kwargs: Mapping[str, Any]
    ) -> None:
        if not self.enabled:
            return
        fields = who(run.metadata)
        if node := text(run.metadata.get("langgraph_node")):
            fields["node"] = node
        call = api.generation(
            text(kwargs.get("name")),
            model=model_of(run.metadata, kwargs.get("invocation_params") or {}),
            provider=provider_of(run.metadata),
            operation=operation,
            inputs=inputs,
            parent=self._parent(run),
            **fields,
        )
        if call is not NO_CALL:
            self._keep(run.id, call.start(), own=True)
            expect(call)

    def _begin(self, name: str, operation: str, inputs: Any, run: _Run) -> None:
        if not self.enabled:
            return
        call = api.operation_call(name, operation, parent=self._parent(run))
        if call is NO_CALL:
            return
        if fields := who(run.metadata):
            call.set(**fields)
        call.inputs(inputs)
        self._keep(run.id, call.start(), own=True)

    @contained("the LangChain callback")
    def _end(self, run_id: UUID, output: Any) -> None:
        call = self._taken(run_id)
        if call is not None:
            call.output(output)
            call.finish()

    def _parent(self, run: _Run) -> Call | None:
        return None if run.parent is None else self._runs.get(run.parent, (None, False))[0]

    def _keep(self, run_id: UUID, call: Call | None, *, own: bool) -> None:
        while len(self._runs) >= MAX_OPEN:
            oldest, owned = self._runs.pop(next(iter(self._runs)), (None, False))
            if oldest is not None and owned:
                oldest.finish(GeneratorExit("LangChain told no end"))
        self._runs[run_id] = (call, own)

    def _taken(self, run_id: UUID) -> Call | None:
        call, own = self._runs.pop(run_id, (None, False))
        return call if own else None


_handler = CallmeterCallback()
#: What LangChain looks into whenever something runs.
_HOOK: ContextVar[CallmeterCallback | None] = ContextVar("callmeter_langchain", default=_handler)
_hooked: list[bool] = []


def install() -> Callable[[], None]:
    """Put the callback into every run from now on; returns what takes it out."""
    from langchain_core.tracers.context import register_configure_hook

    if not _hooked:
        # LangChain has no way to take a hook away, so it stays and the handler is switched.
        register_configure_hook(_HOOK, inheritable=True)
        _hooked.append(True)
    _handler.enabled = True

    def undo() -> None:
        _handler.enabled = False

    return undo
