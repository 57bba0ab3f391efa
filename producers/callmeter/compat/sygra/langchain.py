"""A LangChain callback handler: model calls of agents, which no decorator sees."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from callmeter.compat.sygra.collector import get_metadata_collector
from callmeter.compat.sygra.records import OK, RAISED
from callmeter.compat.sygra.requests import LiveRequest
from callmeter.compat.sygra.state import current
from callmeter.compat.sygra.tokens import counts_and_units
from callmeter.errors import MissingExtraError
from callmeter.sdk.usage.fields import get, text

try:
    from langchain_core.callbacks import AsyncCallbackHandler
except ModuleNotFoundError as exc:
    raise MissingExtraError("langchain-core", "langchain") from exc

_UNKNOWN = "unknown"


class MetadataTrackingCallback(AsyncCallbackHandler):
    """Records every model call of a LangChain agent or chain, sync or async.

    Without ``model_name`` the name is what the answer says, else what the request said.

    >>> callback = MetadataTrackingCallback(model_name="gpt-4o")
    >>> await agent.ainvoke(question, config={"callbacks": [callback]})
    """

    #: In the caller's own task, so that a client instrumented below sees that it is wrapped.
    run_inline = True

    def __init__(self, model_name: str = _UNKNOWN) -> None:
        super().__init__()
        self.model_name = model_name
        #: Calls under way by LangChain's run id.
        self.call_start_times: dict[UUID, LiveRequest] = {}

    async def on_chat_model_start(
        self, serialized: dict[str, Any], messages: list[list[Any]], *, run_id: UUID, **kwargs: Any
    ) -> None:
        """A chat model is asked."""
        self._begin(run_id, kwargs)

    async def on_llm_start(
        self, serialized: dict[str, Any], prompts: list[str], *, run_id: UUID, **kwargs: Any
    ) -> None:
        """A text model is asked."""
        self._begin(run_id, kwargs)

    async def on_llm_end(self, response: Any, *, run_id: UUID, **kwargs: Any) -> None:
        """It has answered; without usage the request counts with 0 tokens."""
        request = self.call_start_times.pop(run_id, None)
        if request is None:
            if not get_metadata_collector().is_enabled():
                return
            request = LiveRequest(current(), self.model_name, {})
        told = text(get(response, "llm_output", "model_name"))
        unnamed = self.model_name == _UNKNOWN
        request.end(OK, counts_and_units(response), label=told if unnamed else None)

    async def on_llm_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """It has failed: code 999."""
        request = self.call_start_times.pop(run_id, None)
        if request is None:
            if not get_metadata_collector().is_enabled():
                return
            request = LiveRequest(current(), self.model_name, {})
        request.end(RAISED, None, error)

    def _begin(self, run_id: UUID, said: dict[str, Any]) -> None:
        if not get_metadata_collector().is_enabled():
            return
        asked = said.get("invocation_params") or {}
        label = self.model_name
        if label == _UNKNOWN:
            label = text(asked.get("model")) or text(asked.get("model_name")) or _UNKNOWN
        parameters = {k: asked[k] for k in ("temperature", "max_tokens", "top_p") if k in asked}
        config = {"type": _kind(asked), "parameters": parameters}
        self.call_start_times[run_id] = LiveRequest(current(), label, config)


def _kind(asked: dict[str, Any]) -> str:
    """SyGra's name of LangChain's ``_type`` of a model."""
    kind = str(asked.get("_type") or "")
    if "azure" in kind:
        return "AzureOpenAI"
    if "openai" in kind:
        return "OpenAI"
    return "Bedrock" if "bedrock" in kind else _UNKNOWN
