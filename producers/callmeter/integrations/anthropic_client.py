"""Anthropic's client library: messages, plain and streamed, sync and async.

Its base client is built like OpenAI's, so the seams are the same. A stream tells its usage in two
parts: what went in with the first event, what came out with the last.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from callmeter.integrations.openai_client import (
    Metered,
    counted,
    metered_async_request,
    metered_request,
    owner,
    patch,
)
from callmeter.integrations.openai_streams import Chunks
from callmeter.sdk import api
from callmeter.sdk.call import NO_CALL
from callmeter.sdk.nesting import enter_billable
from callmeter.sdk.usage.fields import get

_PATH = "/v1/messages"
#: Request fields worth keeping as attributes.
_KEPT = ("temperature", "top_p", "top_k", "max_tokens", "service_tier")
#: Classes of the library that speak to others' clouds → whose prices hold.
_CLOUDS = {"Bedrock": "aws", "Vertex": "google", "Foundry": "azure"}


def install() -> Callable[[], None]:
    """Patch the base clients; returns what puts them back."""
    import anthropic

    request = partial(metered_request, kind=_Metered)
    async_request = partial(metered_async_request, kind=_Metered)
    plain, later = anthropic.Anthropic, anthropic.AsyncAnthropic
    undos = [
        patch(owner(plain, "request"), "request", request),
        patch(owner(later, "request"), "request", async_request),
        patch(owner(plain, "_prepare_request"), "_prepare_request", counted),
        patch(owner(later, "_prepare_request"), "_prepare_request", counted),
    ]

    def undo() -> None:
        for one in reversed(undos):
            one()

    return undo


class _Events(Chunks):
    """Reads the events of a message as they pass by; none of them is hidden."""

    _message: dict[str, Any] | None = None

    def _read(self, chunk: Any) -> bool:
        kind = get(chunk, "type")
        if kind == "message_start":
            self._tell(get(chunk, "message", "usage"), model=get(chunk, "message", "model"))
        elif kind == "content_block_delta":
            self.call.first_token()
            text = get(chunk, "delta", "text")
            if self.keep and isinstance(text, str):
                self.texts.append(text)
        elif kind == "message_delta":
            self._tell(get(chunk, "usage"), stop_reason=get(chunk, "delta", "stop_reason"))
        return False

    def _tell(self, usage: Any, **fields: Any) -> None:
        """Figures are cumulative: a later one replaces an earlier one, None does not."""
        message = self._message or {"type": "message", "role": "assistant", "usage": {}}
        self._message = {**message, **fields}
        told = usage if isinstance(usage, dict) else getattr(usage, "__dict__", {})
        fresh = {name: value for name, value in told.items() if value is not None}
        self._message["usage"] = {**self._message["usage"], **fresh}
        self.call.record(self._message, output=False)


class _Metered(Metered):
    """One request for a message."""

    reader = _Events

    def begin(self, client: Any, options: Any) -> None:
        body = options.json_data
        path = str(options.url).partition("?")[0]
        if path != _PATH or not isinstance(body, dict) or options.method.lower() != "post":
            return
        fields = {n: body[n] for n in _KEPT if isinstance(body.get(n), int | float | str)}
        user = get(body, "metadata", "user_id")
        if isinstance(user, str):
            fields["user"] = user
        name = type(client).__name__
        cloud = next((p for part, p in _CLOUDS.items() if part in name), "anthropic")
        call = api.generation(
            model=str(body.get("model", "")),
            provider=cloud,
            operation="chat",
            inputs=body.get("messages"),
            **fields,
        )
        if call is not NO_CALL:
            self.call = call.start()
            enter_billable(call)
