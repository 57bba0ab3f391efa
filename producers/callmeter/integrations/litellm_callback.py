"""LiteLLM, by its callbacks: completions, text completions, responses and embeddings.

A call begins when LiteLLM is about to speak to a provider and ends when it reports success or
failure, from whichever of its threads. Where it goes through a client that is instrumented too,
that client's call is the billable one (``nesting``). A streamed call whose caller did not ask for
usage (``stream_options={"include_usage": True}``) is ``usage_unknown``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from callmeter.sdk import api
from callmeter.sdk.call import NO_CALL, Call
from callmeter.sdk.containment import CONTAINMENT
from callmeter.sdk.nesting import expect

#: LiteLLM's ``call_type``, without the ``a`` of the async ones → our operation.
OPERATIONS = {
    "completion": "chat",
    "responses": "chat",
    "text_completion": "text_completion",
    "embedding": "embeddings",
}
#: Providers that LiteLLM calls otherwise than price books do.
PROVIDERS = {
    "bedrock": "aws",
    "fireworks_ai": "fireworks",
    "gemini": "google",
    "together_ai": "together",
    "vertex_ai": "google",
    "xai": "x-ai",
}
#: Calls that may be open at a time; one whose end LiteLLM never tells must not stay for ever.
MAX_OPEN = 10_000


def install() -> Callable[[], None]:
    """Register with LiteLLM; returns what unregisters."""
    import litellm  # type: ignore[import-not-found]  # its own environment: it pins old clients
    from litellm.integrations.custom_logger import (  # type: ignore[import-not-found]
        CustomLogger,
    )

    books = _Books()

    class Callback(CustomLogger):  # type: ignore[misc]  # no types where it is not installed
        """Passes on what LiteLLM tells; it calls these by name of argument."""

        def log_pre_api_call(self, model: Any, messages: Any, kwargs: Any) -> None:
            books.begin(str(model), messages, kwargs)

        def log_success_event(
            self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any
        ) -> None:
            books.end(kwargs, response_obj)

        async def async_log_success_event(
            self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any
        ) -> None:
            books.end(kwargs, response_obj)

        def log_failure_event(
            self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any
        ) -> None:
            books.fail(kwargs)

        async def async_log_failure_event(
            self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any
        ) -> None:
            books.fail(kwargs)

    callback = Callback()
    litellm.callbacks.append(callback)

    def undo() -> None:
        # LiteLLM copies what is registered into a list for each kind of event.
        for held in [value for value in vars(litellm).values() if isinstance(value, list)]:
            while callback in held:
                held.remove(callback)

    return undo


class _Books:
    """Calls that have begun, by LiteLLM's own id. Any thread; one operation each."""

    def __init__(self) -> None:
        self._open: dict[str, Call] = {}

    def begin(self, model: str, messages: Any, kwargs: dict[str, Any]) -> None:
        try:
            self._begin(model, messages, kwargs)
        except Exception as exc:  # noqa: BLE001  # the host's request goes on unmetered
            CONTAINMENT.caught("the LiteLLM instrument", exc)

    def _begin(self, model: str, messages: Any, kwargs: dict[str, Any]) -> None:
        kind = str(kwargs.get("call_type") or "")
        operation = OPERATIONS.get(kind) or OPERATIONS.get(kind.removeprefix("a"))
        number = str(kwargs.get("litellm_call_id") or "")
        if operation is None or not number or number in self._open:
            return
        name = str(kwargs.get("custom_llm_provider") or "")
        fields: dict[str, Any] = {}
        if isinstance(user := kwargs.get("user"), str) and user:
            fields["user"] = user
        call = api.generation(
            model=model,
            provider=PROVIDERS.get(name, name) or None,
            operation=operation,
            inputs=messages,
            **fields,
        )
        if call is NO_CALL:
            return
        while len(self._open) >= MAX_OPEN:
            oldest = self._open.pop(next(iter(self._open)), None)
            if oldest is not None:
                oldest.finish(GeneratorExit("LiteLLM told no end"))
        self._open[number] = call.start()
        expect(call)

    def end(self, kwargs: dict[str, Any], reply: Any) -> None:
        call = self._taken(kwargs)
        if call is None:
            return
        try:
            began, first = kwargs.get("api_call_start_time"), kwargs.get("completion_start_time")
            if kwargs.get("stream") and began is not None and first is not None:
                waited_ns = int(max(0.0, (first - began).total_seconds()) * 1e9)
                call._extra().setdefault("first_ns", call.start_ns + waited_ns)
            call.record(reply, output=call.attribute("operation") != "embeddings")
        except Exception as exc:  # noqa: BLE001  # the reply itself is fine
            CONTAINMENT.caught("the LiteLLM instrument", exc)
        call.finish()

    def fail(self, kwargs: dict[str, Any]) -> None:
        call = self._taken(kwargs)
        if call is not None:
            exc = kwargs.get("exception")
            call.finish(exc if isinstance(exc, BaseException) else RuntimeError(str(exc)))

    def _taken(self, kwargs: dict[str, Any]) -> Call | None:
        return self._open.pop(str(kwargs.get("litellm_call_id") or ""), None)
